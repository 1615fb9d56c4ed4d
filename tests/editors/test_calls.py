"""What options of the command line become of a method's settings."""

from editors.calls import fatezero_settings
from editors.fatezero import ATTRIBUTE
from videogen.editing import Request
from videogen.generation import Request as Base


def test_a_named_place_is_all_that_may_change_in_every_step() -> None:
    request = Request("clip.mp4", Base("a blue circle"), source_prompt="a red circle", blend=("circle",))
    settings = fatezero_settings(request)
    assert (settings.blend, settings.blend_latents, settings.blend_window) == (("circle",), True, (0.0, 1.0))
    assert settings.exchange == ATTRIBUTE.exchange
