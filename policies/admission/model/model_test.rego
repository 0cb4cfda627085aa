package organisation.admission_test

import rego.v1

import data.organisation.admission
import data.testing

test_a_large_model_of_few_people_is_remarked_on if {
	asked := testing.changed("/request/model/parameters", 300001)
	admission.allow with input as asked
	testing.codes(admission.warn) == {"model_large_for_population"} with input as asked
}

test_a_model_that_fits_is_not_remarked_on if {
	admission.warn == set() with input as testing.changed("/request/model/parameters", 300000)
}
