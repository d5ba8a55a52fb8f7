# The policy of a cachewfsd without [auth] policy, and a start for your own.
#
# input.subject    the name of the caller's token; "" without one
# input.groups     the groups of the token
# input.action     "read", "push", "metrics" or "admin"
# input.host       the host in the name of the repository; "" if the request names none
# input.repo       the repository, as in "github.com/org/repo"; "" if the request names none
# input.method     the HTTP method
# input.client_ip  the address at the other end of the connection
# input.is_loopback  whether that is on this machine, and neither a proxy nor a web page
#
# allow: the request is answered. hide: one that is not allowed gets the answer for a repository
# that doesn't exist.
package cachewfs

import rego.v1

default allow := false

# Whoever reaches the daemon may read what it mirrors.
allow if input.action in {"read", "metrics"}

# Upstream decides: pushes go through with the client's own credentials.
allow if input.action == "push"

allow if {
	input.action == "admin"
	input.is_loopback
}

allow if "admin" in input.groups
