# From the flattened network-config (version 2) to one small shell file per card in DIR, named by MAC address or card name,
# read by /etc/tiny/net: static addresses, gateways, name servers; dhcp=1 when DHCP is asked for too.
{ sub(/^network[.]/, "", $1) }
split($1, k, ".") > 2 && k[1] == "ethernets" {
	id = k[2]; seen[id] = 1
	rest = substr($1, length("ethernets." id ".") + 1)
	v = $2
	if (rest == "match.macaddress") mac[id] = tolower(v)
	else if (rest == "set-name" || rest == "match.name") ifname[id] = v
	else if (rest == "dhcp4") dhcp[id] = v ~ /^([Tt]rue|[Yy]es|[Oo]n)$/
	else if (v !~ /^[0-9a-fA-F.:\/]+$/ && v != "default") next
	else if (rest ~ /^addresses[.]/) out[id] = out[id] "ip addr add " v " dev \"$i\" && say \"$i " bare(v) "\"\n"
	else if (rest ~ /^gateway[46]$/) out[id] = out[id] "ip route replace default via " v " dev \"$i\"\n"
	else if (rest ~ /^nameservers[.]addresses[.]/) dns[id] = dns[id] "nameserver " v "\\n"
	else if (rest ~ /^routes[.][0-9]+[.]to$/) to[id, k[4]] = v == "0.0.0.0/0" ? "default" : v
	else if (rest ~ /^routes[.][0-9]+[.]via$/) { via[id, k[4]] = v; if (k[4] >= routes[id]) routes[id] = k[4] + 1 }
}
function bare(v) { sub(/\/.*/, "", v); return v }
END {
	for (id in seen) {
		for (r = 0; r < routes[id]; r++)
			if (to[id, r] != "" && via[id, r] != "") out[id] = out[id] "ip route replace " to[id, r] " via " via[id, r] " dev \"$i\"\n"
		if (out[id] == "") continue
		if (dns[id] != "") out[id] = out[id] "printf '" dns[id] "' >/run/tiny/net/\"$i\".dns; cat /run/tiny/net/*.dns >/run/resolv.conf\n"
		file = mac[id] != "" ? mac[id] : ifname[id] != "" ? ifname[id] : id
		if (file !~ /^[a-zA-Z0-9:._-]+$/) continue
		printf "%s%s", out[id], dhcp[id] ? "dhcp=1\n" : "dhcp=\n" >(dir "/" file)
	}
}
