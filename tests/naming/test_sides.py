"""Sides in the names of structures: every usual spelling counts, and whole words only."""

from __future__ import annotations

import pytest

from segmed.naming import guess_sides, words_of
from segmed.plan.mirroring import plan_mirroring
from segmed.structures import Code, LabelClass


@pytest.mark.parametrize(
    "name",
    ["Left Kidney", "kidney_right", "L Kidney", "R-Lung", "kidney-L", "Femur.R", "FemurL",
     "LKidney", "lt_femur", "RTfemur", "Eye (L)", "rib_left_3", "rib_r_12", "rib7L", "lh.cuneus",
     "ctx-rh-insula", "arteria renalis sinistra", "musculus dexter", "Niere links",
     "rechte Lunge", "poumon gauche", "oreille droite", "riñón izquierdo", "pulmón derecho",
     "rene destro", "occhio sx", "rim esquerdo", "pulmão direito", "vänster öga",
     "HÖGER NJURE", "левая почка", "左肾", "LEFTVENTRICLE", "left3", "leftkidney",
     "lv_myocardium", "лівий", "ліва нирка", "rinichi stâng", "lijevi bubreg", "десен бъбрек",
     "ľavá oblička", "vasemman", "الكلية اليمنى", "كلية يسرى", "כליה שמאל", "thận trái",
     "ginjal kanan", "ไตซ้าย", "ไตขวา", "बायां", "sağ böbrek", "böbrek sol", "poumon dte",
     "linkerventrikel", "lungright2", "левый"],
)  # fmt: skip
def test_a_name_of_one_side_forbids_mirroring(name: str) -> None:
    guess = guess_sides([name, "other"])
    assert guess is not None
    assert guess.name == name
    assert repr(name) in guess.why


@pytest.mark.parametrize(
    "pair",
    [("HIPL", "HIPR"), ("lkid", "rkid"), ("Auge OS", "Auge OD"), ("rein G", "rein D"),
     ("Niere li", "Niere re"), ("riñón I", "riñón D"), ("3l", "3r"), ("L1", "R1"),
     ("kidneyl", "kidneyr"), ("vä njure", "hö njure"), ("нирка Л", "нирка П"),
     ("ledvina L", "ledvina P"), ("PulmonaryVeinLI", "PulmonaryVeinRI"), ("vese b", "vese j")],
)  # fmt: skip
def test_pairs_that_differ_in_a_letter_of_the_side_forbid_mirroring(pair: tuple[str, str]) -> None:
    guess = guess_sides(pair)
    assert guess is not None
    assert guess.is_sure


@pytest.mark.parametrize(
    "names",
    [("liver", "spleen"), ("lung",), ("vertebrae_L4", "vertebrae_L5"), ("bright_spot", "lesion"),
     ("oral_cavity", "larynx"), ("foreground",), ("anterior", "posterior"), ("Os sacrum",),
     ("tumour", "oedema"), ("collar", "corlar"), ("T1", "T2"),
     ("blinker",), ("sagittal_sinus", "solid")],
)  # fmt: skip
def test_names_that_tell_no_sides_apart_allow_it(names: tuple[str, ...]) -> None:
    assert guess_sides(names) is None


@pytest.mark.parametrize(
    "name",
    ["Niere_re", "Niere li", "rein G", "Auge OD", "riñón D", "vese_j", "нирка П", "kidneyRe"],
)
def test_one_word_of_a_pair_at_the_end_is_in_doubt(name: str) -> None:
    guess = guess_sides(["tumour", name])
    assert guess is not None
    assert (guess.name, guess.is_sure) == (name, False)
    assert plan_mirroring([LabelClass(name=name, value=1)], 3, None).axes == ()


@pytest.mark.parametrize(
    "names",
    [("type_h", "type_i", "type_k"), ("re", "tumour"), ("d",), ("Os sacrum", "Os pubis"),
     ("in_situ", "invasive"), ("Vena cava", "aorta")],
)  # fmt: skip
def test_letters_that_count_up_or_are_a_name_of_their_own_tell_no_side(
    names: tuple[str, ...],
) -> None:
    assert guess_sides(names) is None


def test_several_structures_without_names_are_in_doubt() -> None:
    guess = guess_sides(["label_3", "label_7"])
    assert guess is not None
    assert not guess.is_sure
    assert guess_sides(["label_3"]) is None


@pytest.mark.parametrize(
    "pair", [("tooth_11", "tooth_21"), ("Zahn 18", "Zahn 28"), ("hip1", "hip2")]
)
def test_structures_that_a_number_alone_tells_apart_are_in_doubt(pair: tuple[str, str]) -> None:
    guess = guess_sides([*pair, "mandible"])
    assert guess is not None
    assert not guess.is_sure
    assert guess_sides([pair[0], "mandible"]) is None


def test_words_are_cut_in_both_readings_of_camel_case() -> None:
    assert words_of("LTfemur")[0] == "ltfemur"
    assert {"lt", "femur", "l"} <= set(words_of("LTfemur"))
    assert "l" not in words_of("vertebra_L4")
    assert words_of("12L") == ("12l", "12", "l")


def labels(*names: str) -> list[LabelClass]:
    return [LabelClass(name=name, value=value) for value, name in enumerate(names, 1)]


def test_a_plan_says_why_it_does_not_mirror_and_how_to_insist() -> None:
    found = plan_mirroring(labels("Kidney.L", "tumour"), 3, None)
    assert found.axes == ()
    assert not found.is_sure
    assert "'Kidney.L'" in found.why
    assert "--flips" in found.why
    assert plan_mirroring(labels("Kidney.L"), 3, None, wish=(0,)).axes == (0,)
    assert plan_mirroring(labels("liver"), 3, None, wish=()).axes == ()
    assert plan_mirroring(labels("liver"), 3, None).axes == (0,)


def test_directions_matter_where_pictures_are_mirrored_along_both_axes() -> None:
    assert plan_mirroring(labels("upper_lip", "lower_lip"), 2, None).axes == ()
    assert plan_mirroring(labels("upper_lip", "lower_lip"), 3, None).axes == (0,)
    assert plan_mirroring(labels("vessel"), 2, None).axes == (0, 1)


def test_the_meaning_of_a_code_tells_sides_too() -> None:
    kidney = Code(scheme="SCT", value="18639004", meaning="Left kidney")
    coded = LabelClass(name="kidney", value=1, code=kidney)
    assert plan_mirroring([coded], 3, None).axes == ()


def test_bare_numbers_forbid_mirroring_in_doubt() -> None:
    guess = guess_sides(["1", "2"])
    assert guess is not None
    assert not guess.is_sure
