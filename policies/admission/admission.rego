# METADATA
# title: The organisation's base policy
# description: |
#   Every request passes this policy and the dataset owner's; an owner can only tighten it. Each folder holds one rule
#   with its tests. Rules named as in the contract are read by the service; helpers begin with an underscore. What is
#   allowed is stated positively, in `allow`: a condition that can't be evaluated then refuses, where a `deny` would
#   silently not fire.
# scope: package
package organisation.admission

import rego.v1

default allow := false

# METADATA
# title: Whether the organisation allows the request at all
# entrypoint: true
allow if {
	input.schema_version == 1
	_researcher
	_project_has_members
	_population_is_fit
	_pool_holds_a_round
}
