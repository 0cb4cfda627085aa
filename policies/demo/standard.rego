# METADATA
# title: A policy for datasets of one's own
# description: |
#   A cautious start for an owner who has written none: research with a stated purpose, moderate runs, and rounds of at most
#   half of the people who may be sampled.
package owners.standard

import rego.v1

default allow := false

# METADATA
# title: Whether the owner allows the request at all
# entrypoint: true
allow if {
	input.requester.role == "researcher"
	input.dataset.policy == "standard"
	_purpose_is_stated
}

# METADATA
# title: A purpose is stated
deny contains {
	"code": "purpose_required",
	"message": "The owner asks what the training is for: pass purpose=\"…\".",
	"field": "purpose",
} if {
	not _purpose_is_stated
}

# METADATA
# title: How much may be asked of the data
limits := {
	"max_rounds": 1000,
	"max_clients_per_round": max([1, floor(input.request.no_clients / 2)]),
	"min_noise_multiplier": 0.5,
	"min_no_clients": 50,
	"max_clipping_norm": 10,
	"max_local_epochs": 5,
	"max_model_parameters": 5000000,
}

# METADATA
# title: The trained model is handed to the researcher
obligations contains {"type": "publish_weights", "params": {}}

_purpose_is_stated if {
	is_string(input.purpose)
	not trim_space(input.purpose) in {"", "unspecified"}
}
