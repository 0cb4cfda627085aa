"""The log: its checkpoint, its keys, and the proofs that an auditor checks without us."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query, Response
from pydantic import BaseModel, Field

from api.auth import PrincipalDep
from api.routes import router
from api.services import ServicesDep
from governance.ledger.notes import encode_hash

routes = router("ledger")

Size = Annotated[int, Query(ge=0, lt=2**53, description="entries in the tree")]
NOTE_TYPE = "text/plain; charset=utf-8"


class InclusionOut(BaseModel):
    """RFC 6962 section 2.1.1. Hashes are base64; compare ``root`` with a checkpoint of the same size."""

    index: int
    size: int
    leaf_hash: str
    root: str
    proof: list[str]


class ConsistencyOut(BaseModel):
    """RFC 6962 section 2.1.2. Hashes are base64; the roots are those of two checkpoints."""

    old: int
    new: int
    proof: list[str]


class LogKeyOut(BaseModel):
    verifier_key: str = Field(description="name+id+key, as c2sp.org/signed-note writes it")
    from_index: int = Field(description="signs trees of more entries than this, until the next key")
    rotation_checkpoint: str | None = Field(description="the checkpoint that this key and the one before it signed")


class WitnessOut(BaseModel):
    verifier_key: str
    cosigned_at: datetime | None = Field(description="null: the last checkpoint lacks this witness's signature")


class LogKeysOut(BaseModel):
    items: list[LogKeyOut]
    witnesses: list[WitnessOut]


@routes.get(
    "/v1/ledger/checkpoint",
    summary="The last signed checkpoint: a C2SP note, with the witnesses' signatures",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def checkpoint(services: ServicesDep, principal: PrincipalDep) -> Response:
    return Response(services.transparency.checkpoint(), headers={"Content-Type": NOTE_TYPE})


@routes.get("/v1/ledger/proofs/inclusion", summary="That entry `index` is in the tree of the first `size` entries")
def inclusion(services: ServicesDep, principal: PrincipalDep, index: Size, size: Size) -> InclusionOut:
    found = services.transparency.inclusion(index, size)
    return InclusionOut(
        index=found.index,
        size=found.size,
        leaf_hash=encode_hash(found.leaf_hash),
        root=encode_hash(found.root),
        proof=[encode_hash(one) for one in found.proof],
    )


@routes.get("/v1/ledger/proofs/consistency", summary="That the tree of `new` entries continues that of `old`")
def consistency(services: ServicesDep, principal: PrincipalDep, old: Size, new: Size) -> ConsistencyOut:
    found = services.transparency.consistency(old, new)
    return ConsistencyOut(old=found.old, new=found.new, proof=[encode_hash(one) for one in found.proof])


@routes.get("/v1/ledger/keys", summary="The log's keys, oldest first, and its witnesses")
def keys(services: ServicesDep, principal: PrincipalDep) -> LogKeysOut:
    found = services.transparency.keys()
    return LogKeysOut(
        items=[
            LogKeyOut(verifier_key=one.key.encode(), from_index=one.from_index, rotation_checkpoint=one.rotation)
            for one in found
        ],
        witnesses=[
            WitnessOut(
                verifier_key=one.key.encode(),
                cosigned_at=None if one.cosigned_at is None else datetime.fromtimestamp(one.cosigned_at, UTC),
            )
            for one in services.transparency.witnesses()
        ],
    )
