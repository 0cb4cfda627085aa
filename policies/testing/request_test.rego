# METADATA
# description: |
#   The request that the tests start from, the same as the example in input.schema.json. It is a sensible request of the
#   demonstration: every policy here allows it. A test changes what it is about with `changed`.
package testing

import rego.v1

request := {
	"schema_version": 1,
	"now": "2026-01-15T09:30:00.000000Z",
	"now_ns": 1768469400000000000,
	"request": {
		"rounds": 80,
		"clients_per_round": 30,
		"no_clients": 300,
		"pool_restricted": false,
		"sampling_probability": 0.1,
		"noise_multiplier": 1.2,
		"max_noise_multiplier": 100,
		"clipping_norm": 0.3,
		"mechanism": "gaussian_fixed_clipping",
		"loss": "sparse_categorical_crossentropy",
		"local_epochs": 1,
		"batch_size": 8,
		"client_optimizer": "sgd",
		"client_learning_rate": 2,
		"client_momentum": 0,
		"server_optimizer": "sgd",
		"server_learning_rate": 1,
		"server_momentum": 0.9,
		"on_exceed": "clamp",
		"model": {
			"parameters": 4810,
			"layer_types": [
				"dense",
				"dense",
			],
			"layers": 2,
		},
	},
	"requester": {
		"id": "usr_000000000000000000000001",
		"role": "researcher",
	},
	"project": {
		"id": "prj_000000000000000000000001",
		"name": "Handwriting",
		"members": 1,
	},
	"dataset": {
		"id": "dst_000000000000000000000001",
		"name": "digits",
		"version": 1,
		"policy": "digits",
		"has_public_holdout": true,
	},
	"population": {
		"id": "pop_000000000000000000000001",
		"name": "Writers",
		"declared_size": 300,
		"relation": "ADD_OR_REMOVE_ONE",
		"epsilon": 8,
		"delta": 0.00001,
	},
	"budget": {
		"population": {
			"guarantee_epsilon": 8,
			"spent_epsilon": 0,
			"committed_epsilon": 0,
			"delta": 0.00001,
		},
		"quotas": [],
	},
	"purpose": "research on reading handwritten digits",
}

# `request` with the value at a path such as "/request/rounds" replaced.
changed(path, value) := json.patch(request, [{"op": "replace", "path": path, "value": value}])

codes(reasons) := {reason.code | some reason in reasons}
