package organisation.admission_test

import rego.v1

import data.organisation.admission
import data.testing

test_a_missing_purpose_is_remarked_on_and_allowed[purpose] if {
	some purpose in ["", "  ", "unspecified", " unspecified "]
	asked := testing.changed("/purpose", purpose)
	admission.allow with input as asked
	testing.codes(admission.warn) == {"purpose_not_stated"} with input as asked
}
