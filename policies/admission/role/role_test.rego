package organisation.admission_test

import rego.v1

import data.organisation.admission
import data.testing

test_other_roles_are_refused[role] if {
	some role in ["owner", "auditor", "admin", "runner", "Researcher", ""]
	asked := testing.changed("/requester/role", role)
	not admission.allow with input as asked
	testing.codes(admission.deny) == {"role_not_researcher"} with input as asked
}
