# The policy of a daemon whose configuration has no [auth] policy. Start your own policy from it.
#
# input.subject    the name of the caller's token; "" without one
# input.groups     the groups of the token
# input.action     "read", "push", "metrics" or "admin"
# input.host       the host in the name of the repository; "" if the request names none
# input.repo       the repository, as in "github.com/org/repo"; "" if the request names none
# input.method     the HTTP method
# input.client_ip  the address of the client, or of the proxy between it and the daemon
# input.is_loopback  true for a program on this machine, but not for a proxy or a web page
#
# allow: the request is answered. hide: a request that is not allowed gets the answer for a
# repository that doesn't exist.
package cachewfs

import rego.v1

default allow := false

# Every client that reaches the daemon may read mirrored repositories, metrics and the status page.
allow if input.action in {"read", "metrics"}

# Upstream decides about pushes: they carry the client's own credentials.
allow if input.action == "push"

allow if {
	input.action == "admin"
	input.is_loopback
}

allow if "admin" in input.groups
