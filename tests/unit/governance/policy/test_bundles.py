"""Digests, revisions and what belongs into a bundle. Building one is tested with the real OPA."""

from __future__ import annotations

from pathlib import Path

import pytest

from governance.errors import PolicyEngineError
from governance.policy.bundles import digest_of, digest_sources, organisation_files, revision_name, stage
from governance.policy.locate import POLICIES_DIR


@pytest.fixture
def organisation(tmp_path: Path) -> Path:
    for name in ("gate.rego", "system/authz.rego", "admission/a.rego", "admission/rule/rule.rego"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"package {file.stem}\n")
    return tmp_path


def test_the_same_sources_give_the_same_digests(organisation: Path) -> None:
    first = digest_sources(organisation, {"a": "x", "b": "y"})
    assert first == digest_sources(organisation, {"b": "y", "a": "x"})
    assert {"organisation", "owner:a", "owner:b"} == set(first)
    assert digest_of("x") == first["owner:a"]


def test_a_digest_is_sha256_of_the_text() -> None:
    assert "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" == digest_of("abc")


@pytest.mark.parametrize("change", ["gate.rego", "system/authz.rego", "admission/rule/rule.rego", "admission/new.rego"])
def test_any_change_of_the_organisations_files_changes_its_digest(organisation: Path, change: str) -> None:
    before = digest_sources(organisation, {})
    (organisation / change).write_text("package other\n")
    assert before != digest_sources(organisation, {})


def test_tests_and_other_files_are_not_in_the_bundle(organisation: Path) -> None:
    before = organisation_files(organisation)
    for name in ("admission/a_test.rego", "demo/x.rego", "templates/t.rego", "admission/data.json", "other.rego"):
        (organisation / name).parent.mkdir(exist_ok=True)
        (organisation / name).write_text("package x\n")
    assert before == organisation_files(organisation)


def test_the_organisations_own_bundle_holds_no_test() -> None:
    names = organisation_files(POLICIES_DIR)
    assert not [name for name in names if "test" in name or name.startswith("demo")]
    assert {"gate.rego", "system/authz.rego", "system/log.rego", "admission/admission.rego"} <= set(names)


def test_a_folder_without_policies_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyEngineError):
        organisation_files(tmp_path)


@pytest.mark.parametrize("policy_id", ["../gate", "a/b", "", "A", "a" * 41, "a\n"])
def test_a_policy_id_that_is_no_file_name_is_refused(organisation: Path, tmp_path: Path, policy_id: str) -> None:
    with pytest.raises(PolicyEngineError):
        stage(organisation, {policy_id: "package x"}, tmp_path / "staged")


def test_a_revision_names_the_sequence_and_every_digest() -> None:
    revision = revision_name(3, {"organisation": "sha256:a", "owner:x": "sha256:b"})
    assert revision == revision_name(3, {"owner:x": "sha256:b", "organisation": "sha256:a"})
    assert revision.startswith("3-")
    assert len("3-") + 16 == len(revision)
    assert revision != revision_name(3, {"organisation": "sha256:a", "owner:x": "sha256:c"})
    assert revision != revision_name(4, {"organisation": "sha256:a", "owner:x": "sha256:b"})
