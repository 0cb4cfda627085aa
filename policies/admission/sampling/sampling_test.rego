package organisation.admission_test

import rego.v1

import data.organisation.admission
import data.testing

test_rounds_of_nearly_everyone_are_remarked_on if {
	asked := testing.changed("/request/sampling_probability", 0.51)
	admission.allow with input as asked
	testing.codes(admission.warn) == {"sampling_probability_high"} with input as asked
}

test_rounds_of_half_of_the_people_are_not_remarked_on if {
	admission.warn == set() with input as testing.changed("/request/sampling_probability", 0.5)
}
