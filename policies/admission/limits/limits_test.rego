package organisation.admission_test

import rego.v1

import data.organisation.admission

test_the_limits_need_no_input if {
	admission.limits.min_noise_multiplier == 0.3 with input as {}
}

test_only_mechanisms_that_are_accounted_are_allowed if {
	admission.limits.allowed_mechanisms == {"gaussian_fixed_clipping"}
}
