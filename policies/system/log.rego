# METADATA
# title: No decision is logged by OPA
# description: |
#   An input holds who asked for what. The service keeps it where it can be erased; OPA's decision log would be a second
#   copy. The log is configured all the same, because OPA gives out decision ids only then, and each event is dropped here.
package system.log

import rego.v1

# METADATA
# title: Drop every event
# entrypoint: true
drop := true
