# METADATA
# title: The one question that the service asks
# description: |
#   Both packages' answers in one query: the organisation's, and that of the dataset's owner, chosen by
#   input.dataset.policy. Only the rules of the contract are passed on. What is undefined is missing from the answer, and
#   the service refuses where a rule that it needs is missing.
# entrypoint: true
package pysytff.gate

import rego.v1

organisation[rule] := answer if {
	some rule in ["allow", "deny", "warn", "limits", "clamp_order", "review", "obligations"]
	answer := data.organisation.admission[rule]
}

owner[rule] := answer if {
	some rule in ["allow", "deny", "warn", "limits", "clamp_order", "review", "obligations"]
	answer := data.owners[input.dataset.policy][rule]
}
