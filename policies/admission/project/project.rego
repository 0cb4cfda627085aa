package organisation.admission

import rego.v1

# METADATA
# title: Somebody answers for the work
# description: A request belongs to a project, and a project has members.
deny contains {
	"code": "project_without_members",
	"message": "The project has no members, so nobody answers for the work. Add a member first.",
	"field": "project",
} if {
	not _project_has_members
}

_project_has_members if input.project.members >= 1
