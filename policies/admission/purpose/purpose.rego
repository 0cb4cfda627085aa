package organisation.admission

import rego.v1

# METADATA
# title: A purpose is stated
# description: |
#   A warning only, because a short script need not state one; an owner who wants a purpose refuses without it.
warn contains {
	"code": "purpose_not_stated",
	"message": "No purpose was stated. Owners and auditors see what each training was for: pass purpose=\"…\".",
} if {
	trim_space(input.purpose) in {"", "unspecified"}
}
