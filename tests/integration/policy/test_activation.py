"""Activation end to end: checks, record, bundle; and what an interrupted or tampered one becomes."""

from __future__ import annotations

import dataclasses
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from governance.errors import ConflictError, InvalidRequestError, PolicyEngineError, StorageError
from governance.policy.activation import ActivationStore, activate
from governance.policy.bundles import BUNDLE_FILE, ActivePolicies, revision_name
from governance.policy.locate import POLICIES_DIR

DIGITS = (POLICIES_DIR / "demo/digits.rego").read_text()
STANDARD = (POLICIES_DIR / "demo/standard.rego").read_text()


@dataclasses.dataclass
class Recorded:
    """Keeps what it is told, as the registry does; the registry's own tests show that it does so durably."""

    active: ActivePolicies | None = None
    sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
    by: str | None = None
    fails: bool = False

    def activate(self, by: str | None, digests: Mapping[str, str], sources: Mapping[str, str]) -> ActivePolicies:
        if self.fails:
            raise StorageError("The disk is full.")
        sequence = 1 if self.active is None else self.active.sequence + 1
        self.active = ActivePolicies(revision_name(sequence, digests), sequence, digests)
        self.sources, self.by = sources, by
        return self.active

    def store(self) -> ActivationStore:
        return ActivationStore(lambda: self.active, lambda: self.sources, self.activate)


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


@pytest.fixture
def organisation(tmp_path: Path) -> Path:
    """A copy of the organisation's policies, to be spoilt."""
    return shutil.copytree(POLICIES_DIR, tmp_path / "organisation")


def names_in(bundle: Path) -> set[str]:
    with tarfile.open(bundle) as archive:
        return {name.lstrip("/") for name in archive.getnames()}


def manifest_of(bundle: Path) -> str:
    with tarfile.open(bundle) as archive:
        member = archive.extractfile("/.manifest")
        assert member is not None
        return member.read().decode()


def test_a_first_activation_is_recorded_and_bundled(recorded: Recorded, tmp_path: Path, opa: Path) -> None:
    found = activate(recorded.store(), POLICIES_DIR, {"digits": DIGITS}, tmp_path, principal_id="usr_1", opa=opa)
    assert (found, "usr_1", {"digits": DIGITS}) == (recorded.active, recorded.by, recorded.sources)
    assert {"organisation", "owner:digits"} == set(found.digests)
    assert f'"revision":"{found.revision}"' in manifest_of(tmp_path / BUNDLE_FILE)


def test_the_bundle_holds_what_is_served_and_nothing_else(recorded: Recorded, tmp_path: Path, opa: Path) -> None:
    activate(recorded.store(), POLICIES_DIR, {"digits": DIGITS}, tmp_path, opa=opa)
    names = names_in(tmp_path / BUNDLE_FILE)
    rego = {name for name in names if name.endswith(".rego")}
    assert {"gate.rego", "system/authz.rego", "system/log.rego", "owners/digits.rego"} <= rego
    assert not [name for name in names if "_test" in name or name.startswith(("demo", "testing"))]
    assert {".manifest", "data.json"} == names - rego
    assert '"roots":[""]' in manifest_of(tmp_path / BUNDLE_FILE)


def test_the_bundle_can_be_read_by_opas_own_user(recorded: Recorded, tmp_path: Path, opa: Path) -> None:
    activate(recorded.store(), POLICIES_DIR, {}, tmp_path, opa=opa)
    assert 0o644 == (tmp_path / BUNDLE_FILE).stat().st_mode & 0o777


def test_the_same_policies_again_record_nothing(recorded: Recorded, tmp_path: Path, opa: Path) -> None:
    first = activate(recorded.store(), POLICIES_DIR, {"digits": DIGITS}, tmp_path, opa=opa)
    recorded.fails = True
    assert first == activate(recorded.store(), POLICIES_DIR, {"digits": DIGITS}, tmp_path, opa=opa)


@pytest.mark.parametrize("damage", ["lost", "cut short"])
def test_a_bundle_that_was_damaged_is_right_again(recorded: Recorded, tmp_path: Path, opa: Path, damage: str) -> None:
    first = activate(recorded.store(), POLICIES_DIR, {"digits": DIGITS}, tmp_path, opa=opa)
    file = tmp_path / BUNDLE_FILE
    file.unlink() if damage == "lost" else file.write_bytes(file.read_bytes()[:100])
    activate(recorded.store(), POLICIES_DIR, {}, tmp_path, opa=opa)
    assert first.revision in manifest_of(file)


def test_policies_in_force_stay_when_another_is_added(recorded: Recorded, tmp_path: Path, opa: Path) -> None:
    first = activate(recorded.store(), POLICIES_DIR, {"digits": DIGITS}, tmp_path, opa=opa)
    second = activate(recorded.store(), POLICIES_DIR, {"standard": STANDARD}, tmp_path, opa=opa)
    assert (first.sequence + 1, {"organisation", "owner:digits", "owner:standard"}) == (
        second.sequence,
        set(second.digests),
    )
    assert {"owners/digits.rego", "owners/standard.rego"} <= names_in(tmp_path / BUNDLE_FILE)


def test_a_policy_that_fails_its_check_changes_nothing(recorded: Recorded, tmp_path: Path, opa: Path) -> None:
    first = activate(recorded.store(), POLICIES_DIR, {"digits": DIGITS}, tmp_path, opa=opa)
    before = (tmp_path / BUNDLE_FILE).read_bytes()
    spoilt = DIGITS.replace("max_rounds", "max_round")
    with pytest.raises(InvalidRequestError):
        activate(recorded.store(), POLICIES_DIR, {"digits": spoilt}, tmp_path, opa=opa)
    assert (first, before) == (recorded.active, (tmp_path / BUNDLE_FILE).read_bytes())


def test_a_record_that_fails_leaves_the_bundle_as_it_was(recorded: Recorded, tmp_path: Path, opa: Path) -> None:
    activate(recorded.store(), POLICIES_DIR, {"digits": DIGITS}, tmp_path, opa=opa)
    before = (tmp_path / BUNDLE_FILE).read_bytes()
    recorded.fails = True
    with pytest.raises(StorageError):
        activate(recorded.store(), POLICIES_DIR, {"standard": STANDARD}, tmp_path, opa=opa)
    assert before == (tmp_path / BUNDLE_FILE).read_bytes()


def test_a_stored_policy_that_was_changed_is_refused(recorded: Recorded, tmp_path: Path, opa: Path) -> None:
    activate(recorded.store(), POLICIES_DIR, {"digits": DIGITS}, tmp_path, opa=opa)
    recorded.sources = {"digits": DIGITS.replace("120", "12000")}
    with pytest.raises(ConflictError, match="digits"):
        activate(recorded.store(), POLICIES_DIR, {}, tmp_path, opa=opa)


@pytest.mark.parametrize(
    ("file", "old", "new", "what"),
    [
        ("admission/limits/limits.rego", "0.3", "0.1", "tests"),
        ("admission/admission.rego", "_pool_holds_a_round", "", "tests"),
        ("admission/role/role.rego", "requester.role ==", "requester.rôle ==", "check"),
        ("admission/role/role.rego", "input.requester.role ==", "input.requester.rol ==", "check"),
        ("system/authz.rego", '"POST"', '"PUT"', "tests"),
        ("gate.rego", "data.owners[input.dataset.policy]", "data.owners.digits", "tests"),
        ("admission/role/role.rego", "_researcher if", "_x := time.now_ns()\n\n_researcher if", "check"),
    ],
)
def test_an_organisations_policy_that_fails_its_own_checks_changes_nothing(
    recorded: Recorded, organisation: Path, tmp_path: Path, opa: Path, file: str, old: str, new: str, what: str
) -> None:
    text = (organisation / file).read_text()
    assert old in text
    (organisation / file).write_text(text.replace(old, new))
    with pytest.raises(InvalidRequestError, match=what):
        activate(recorded.store(), organisation, {"digits": DIGITS}, tmp_path / "bundle", opa=opa)
    assert recorded.active is None
    assert not (tmp_path / "bundle").exists()


def test_a_missing_folder_is_a_clear_error(recorded: Recorded, tmp_path: Path, opa: Path) -> None:
    with pytest.raises(PolicyEngineError, match="can't be read"):
        activate(recorded.store(), tmp_path / "nowhere", {}, tmp_path, opa=opa)
