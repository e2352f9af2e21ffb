"""Unit tests of ``imlkd_brain.corpora.packs``."""

import pytest

from imlkd_brain.corpora.packs import PACKS


@pytest.mark.parametrize(
    ("pack", "path", "voice"),
    [
        ("tuxpaint", "tuxpaint/stamps/a/b/cat_desc_fr.ogg", "fr"),
        ("tuxpaint", "tuxpaint/stamps/a/cat_desc.ogg", "en"),
        ("tuxpaint", "tuxpaint/stamps/a/cat.ogg", None),
        ("klettres", "klettres/pt_BR/syllab/ba.ogg", "pt_BR"),
        ("ktuberling", "ktuberling/sounds/sr/hat.opus", "sr"),
        ("ktuberling", "ktuberling/sounds/sr@latin/hat.opus", None),
        ("ktuberling", "ktuberling/sounds/ca/hat.ogg", "ca_m"),
        ("ktuberling", "ktuberling/sounds/ca/moon_hat.ogg", "ca"),
        ("ktuberling", "ktuberling/sounds/da/hat.ogg", None),
        ("fillets", "games/fillets-ng/sound/a/cs/k1-m-ano.ogg", "cs_m"),
        ("fillets", "games/fillets-ng/sound/a/cs/k1-x-ano.ogg", None),
        ("asterisk", "asterisk/sounds/en_US_f_Allison/a/1.wav", "allison"),
        ("asterisk", "asterisk/sounds/es_MX_f_Allison/1.wav", "allison"),
        ("asterisk", "asterisk/sounds/it_IT_m_Carlo/silence/1.wav", None),
        ("gcin", "gcin-voice/ogg/x/5.ogg", "5"),
        ("uqm", "3dovoice/orz/orz01.ogg", "orz"),
    ],
)
def test_voices_are_read_off_the_paths(pack, path, voice):
    assert PACKS[pack].voice(path) == voice
