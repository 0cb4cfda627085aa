# METADATA
# title: The policy of the demonstration's owner
# description: |
#   For the digits, 300 people who handed in handwriting for research. Stricter than the organisation: more noise, most
#   of all where most of a pool takes part in every round; shorter runs; not for deciding about or advertising to people.
package owners.digits

import rego.v1

default allow := false

# METADATA
# title: Whether the owner allows the request at all
# entrypoint: true
allow if {
	input.requester.role == "researcher"
	input.dataset.policy == "digits"
	is_string(input.purpose)
	not _unwanted_purpose
}

# METADATA
# title: The handwriting was given for research
deny contains {
	"code": "purpose_not_permitted",
	"message": sprintf("The people gave their handwriting for research, not for %s.", [topic]),
	"field": "purpose",
} if {
	some topic in _topics
}

# METADATA
# title: How much may be asked of the data
limits := {
	"max_rounds": 120,
	"max_clients_per_round": 100,
	"min_noise_multiplier": _least_noise,
	"max_clipping_norm": 10,
	"max_local_epochs": 5,
	"max_model_parameters": 1000000,
}

# Where most of the pool takes part in every round, sampling hides little, so the noise has to.
_least_noise := 5 if {
	input.request.sampling_probability > 0.5
} else := 0.8

# METADATA
# title: The trained model is handed to the researcher
obligations contains {"type": "publish_weights", "params": {}}

_unwanted_purpose if count(_topics) > 0

_topics contains topic if {
	some topic, words in {
		"marketing": ["marketing", "advertis", "promotion"],
		"insurance": ["insurance", "insurer", "underwriting"],
		"credit scoring": ["credit", "loan"],
		"identifying people": ["identify people", "identify writers", "surveillance", "forensic"],
	}
	some word in words
	contains(lower(input.purpose), word)
}
