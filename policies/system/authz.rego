# METADATA
# title: Who may ask OPA what
# description: |
#   Everything is refused but asking for a decision, health and status. Without this, any process that reaches OPA could
#   replace `allow`. The token is given to OPA in its environment when it starts, and never lies in a bundle or a command
#   line. OPA evaluates this before every request (--authentication=token --authorization=basic).
# related_resources:
# - https://www.openpolicyagent.org/docs/security#authentication-and-authorization
package system.authz

import rego.v1

default allow := false

# METADATA
# title: Whether the request to OPA may proceed
# entrypoint: true
allow if {
	_authenticated
	input.method == "POST"
	input.path == ["v1", "data", "pysytff", "gate"]
	every name, _ in input.params { name in {"metrics", "provenance", "strict-builtin-errors"} }
}

allow if {
	_authenticated
	input.method == "GET"
	input.path == ["v1", "status"]
}

# No token: an orchestrator's probe has none, and the answer says only that OPA is up, with its bundle.
allow if {
	input.method == "GET"
	input.path == ["health"]
}

# crypto.hmac.equal takes the same time wherever the two differ.
_authenticated if {
	token := opa.runtime().env.PYSYTFF_OPA_TOKEN
	count(token) >= 32
	crypto.hmac.equal(input.identity, token)
}
