package organisation.admission

import rego.v1

# METADATA
# title: Only researchers train
# description: Owners, auditors and administrators have powers that must not be used to learn from the data.
deny contains {
	"code": "role_not_researcher",
	"message": sprintf("Training is for researchers; this account's role is %s.", [input.requester.role]),
	"field": "requester.role",
} if {
	not _researcher
}

_researcher if input.requester.role == "researcher"
