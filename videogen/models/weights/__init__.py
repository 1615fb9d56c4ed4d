"""Checkpoints: read tensor files safely, say what they are from their keys, bring them into our (diffusers') names,
save them.

`files` reads and writes, `pickles` opens .ckpt and .pt without running what they carry, `families` recognises,
`single_file` splits the one-file layouts of Stable Diffusion into parts, `expected` says what is missing or surplus.
"""
