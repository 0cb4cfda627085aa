package organisation.admission_test

import rego.v1

import data.organisation.admission
import data.testing

test_a_project_without_members_is_refused if {
	asked := testing.changed("/project/members", 0)
	not admission.allow with input as asked
	testing.codes(admission.deny) == {"project_without_members"} with input as asked
}
