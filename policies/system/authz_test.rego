package system.authz_test

import rego.v1

import data.system.authz

token := "0123456789abcdef0123456789abcdef"

allowed(request) if {
	authz.allow with input as request
		with opa.runtime as {"env": {"PYSYTFF_OPA_TOKEN": token}}
}

decision := {
	"method": "POST",
	"path": ["v1", "data", "pysytff", "gate"],
	"params": {"metrics": ["True"], "provenance": ["True"], "strict-builtin-errors": ["True"]},
	"identity": token,
}

with_path(path) := object.union(decision, {"path": path})

test_a_decision_with_the_token_is_allowed if allowed(decision)

test_a_decision_without_a_token_is_refused if not allowed(object.remove(decision, ["identity"]))

test_a_decision_with_another_token_is_refused[identity] if {
	some identity in ["", "0123456789abcdef0123456789abcdeg", "0123456789abcdef0123456789abcde", concat("", [token, token])]
	not allowed(object.union(decision, {"identity": identity}))
}

test_nothing_is_allowed_where_opa_was_given_no_token if {
	not authz.allow with input as decision with opa.runtime as {"env": {}}
}

test_a_token_that_can_be_guessed_is_no_token if {
	asked := object.union(decision, {"identity": "short"})
	not authz.allow with input as asked with opa.runtime as {"env": {"PYSYTFF_OPA_TOKEN": "short"}}
}

test_other_decisions_are_refused_with_the_token[path] if {
	some path in [
		["v1", "data"],
		["v1", "data", "pysytff"],
		["v1", "data", "pysytff", "gate", "owner"],
		["v1", "data", "pysytff", "gate", ""],
		["v1", "data", "owners", "digits"],
		["v1", "data", "system", "authz"],
		["v0", "data", "pysytff", "gate"],
		["v1", "query"],
		["v1", "compile"],
		[""],
		[],
	]
	not allowed(with_path(path))
}

test_other_methods_are_refused_with_the_token[method] if {
	some method in ["GET", "PUT", "PATCH", "DELETE", "HEAD", "post"]
	not allowed(object.union(decision, {"method": method}))
}

test_policies_and_data_cannot_be_written_with_the_token[path] if {
	some path in [["v1", "policies", "organisation"], ["v1", "data", "organisation"], ["v1", "config"]]
	some method in ["GET", "PUT", "PATCH", "DELETE", "POST"]
	not allowed(object.union(with_path(path), {"method": method}))
}

test_traces_are_refused if not allowed(object.union(decision, {"params": {"explain": ["full"]}}))

test_health_is_allowed_without_a_token if allowed({"method": "GET", "path": ["health"], "params": {"bundles": [""]}})

test_other_health_paths_are_refused if not allowed({"method": "GET", "path": ["health", "live"], "params": {}})

test_status_needs_the_token if {
	status := {"method": "GET", "path": ["v1", "status"], "params": {}}
	allowed(object.union(status, {"identity": token}))
	not allowed(status)
}
