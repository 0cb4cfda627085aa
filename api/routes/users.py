"""People and runner credentials."""

from __future__ import annotations

from api.answers import InvitationOut, RunnerCredentialOut, UserOut, UsersOut
from api.lanes import LanesDep
from api.routes import router
from api.schemas import AcceptIn, Id, RunnerCredentialIn, UserIn
from api.services import ServicesDep

routes = router("users")


@routes.get("/v1/users", summary="Everybody")
def users(services: ServicesDep) -> UsersOut:
    return UsersOut(items=[UserOut.of(person) for person in services.identity.people()])


@routes.post("/v1/users", status_code=201, summary="Invite somebody")
def invite(services: ServicesDep, body: UserIn) -> InvitationOut:
    """The invitation's token is shown once. Inviting again who has not accepted yet replaces the invitation."""
    return InvitationOut.of(services.identity.invite(body.domain_role, body.email, body.display_name))


@routes.post("/v1/users/accept", status_code=204, summary="Accept an invitation and choose a password")
async def accept(services: ServicesDep, lanes: LanesDep, body: AcceptIn) -> None:
    await lanes.logins.run(services.identity.accept, body.invitation_token, body.password)


@routes.post("/v1/users/{user_id}:disable", status_code=204, summary="Disable a user; their sessions end at once")
def disable(services: ServicesDep, user_id: Id) -> None:
    services.identity.disable(user_id)


@routes.post("/v1/runner-credentials", status_code=201, summary="Make a runner's credential, shown once")
def create_credential(services: ServicesDep, body: RunnerCredentialIn) -> RunnerCredentialOut:
    return RunnerCredentialOut.of(services.identity.create_runner_credential(body.name))


@routes.delete("/v1/runner-credentials/{credential_id}", status_code=204, summary="Revoke a runner's credential")
def revoke_credential(services: ServicesDep, credential_id: Id) -> None:
    services.identity.revoke_runner_credential(credential_id)
