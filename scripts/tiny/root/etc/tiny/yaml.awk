# Flattens YAML (the part of it that cloud-config files use, JSON included) to lines "path<TAB>value":
#   users: [{name: x}]   ->   users.0.name	x
# Known: block and flow maps and lists, plain, 'single' and "double" quoted scalars, | and > blocks, comments, a document start.
# Not known: anchors, aliases, tags, several documents, complex keys.
# In values, \ is written as \\ and a line break as \n, so that a value is always one line (printf %b turns it back).
# A line that can't be understood is reported as "!error<TAB>line N" and skipped: the reader goes on with the rest.

{ sub(/\r$/, ""); L[++n] = $0 }
END {
	p = 1
	while (p <= n) {
		skip_blank()
		if (p > n) break
		before = p
		node(0, "")
		if (p == before) bad()
	}
}

function bad() { print "!error\tline " p; p++ }
function emit(path, v) {
	gsub(/\\/, "\\\\", v)
	gsub(/\n/, "\\n", v)
	gsub(/\t/, "\\t", v)
	print substr(path, 2) "\t" v
}
function indent(s) { match(s, /^ */); return RLENGTH }
function skip_blank() { while (p <= n && L[p] ~ /^([ \t]*(#.*)?|---[ \t]*|\.\.\.)$/) p++ }
function is_item(s) { return s ~ /^ *-([ \t]|$)/ }

# The key of a block map's line, or "": sets REST to what follows the colon.
function map_key(s,   k) {
	sub(/^ +/, "", s)
	if (match(s, /^"([^"\\]|\\.)*"[ \t]*:([ \t]|$)/) || match(s, /^'[^']*'[ \t]*:([ \t]|$)/)) {
		k = substr(s, 1, RLENGTH); REST = substr(s, RLENGTH + 1)
		sub(/[ \t]*:[ \t]*$/, "", k)
		k = substr(k, 2, length(k) - 2)
	} else if (s !~ /^[\[{"'|>#&*!%@`-]/ && match(s, /:([ \t]|$)/)) {
		k = substr(s, 1, RSTART - 1); REST = substr(s, RSTART + 1)
		sub(/[ \t]+$/, "", k)
	} else return ""
	sub(/^[ \t]+/, "", REST)
	return k
}

# One block node that starts on line p with an indent of at least min.
function node(min, path,   i, t) {
	skip_blank()
	if (p > n) return
	i = indent(L[p])
	if (i < min) return
	if (is_item(L[p])) { seq(i, path); return }
	if (map_key(L[p]) != "") { map(i, path); return }
	t = L[p]; sub(/^ +/, "", t)
	value(t, min - 1, path)
}

# A list: every "- " becomes blanks, so what follows it is an ordinary node with a deeper indent.
function seq(i, path,   idx) {
	idx = 0
	while (1) {
		skip_blank()
		if (p > n || indent(L[p]) != i || !is_item(L[p])) return
		L[p] = substr(L[p], 1, i) " " substr(L[p], i + 2)
		if (L[p] ~ /^[ \t]*(#.*)?$/) {
			p++; skip_blank()
			if (p > n || indent(L[p]) <= i) { emit(path "." idx, ""); idx++; continue }
		}
		node(i + 1, path "." idx)
		idx++
	}
}

function map(i, path,   k) {
	while (1) {
		skip_blank()
		if (p > n) return
		if (indent(L[p]) != i) { if (indent(L[p]) > i) { bad(); continue } return }
		if (is_item(L[p])) return
		k = map_key(L[p])
		if (k == "") { bad(); continue }
		if (REST ~ /^(#.*)?$/) {
			p++; skip_blank()
			if (p <= n && indent(L[p]) > i) node(i + 1, path "." k)
			else if (p <= n && indent(L[p]) == i && is_item(L[p])) seq(i, path "." k)
			else emit(path "." k, "")
		} else value(REST, i, path "." k)
	}
}

# A value whose text starts on line p with t, inside a node of indent i.
function value(t, i, path,   c, v) {
	c = substr(t, 1, 1)
	if (c == "|" || c == ">") { block(t, i, path); return }
	B = t; q = 1; failed = 0
	if (c == "[" || c == "{" || c == "\"" || c == "'") {
		at = p
		if (c == "[" || c == "{") flow(path, 0)
		else { v = quoted(); if (!failed) emit(path, v) }
		if (failed) p = at
		if (failed || substr(B, q) !~ /^[ \t]*(#.*)?$/) { bad(); return }
		p++
		return
	}
	sub(/[ \t]+#.*$/, "", t); sub(/[ \t]+$/, "", t)
	p++
	while (p <= n && L[p] !~ /^[ \t]*(#.*)?$/ && indent(L[p]) > i) {  # a plain scalar goes on over deeper lines
		v = L[p]; sub(/^ +/, "", v); sub(/[ \t]+#.*$/, "", v); sub(/[ \t]+$/, "", v)
		t = t " " v; p++
	}
	emit(path, t)
}

function block(t, i, path,   style, chomp, w, v, line, empty) {
	style = substr(t, 1, 1)
	chomp = t ~ /^.[0-9]*-/ ? "-" : t ~ /^.[0-9]*\+/ ? "+" : ""
	w = -1; v = ""; empty = ""
	for (p++; p <= n; p++) {
		line = L[p]
		if (line ~ /^ *$/) { empty = empty "\n"; continue }
		if (indent(line) <= i) break
		if (w < 0) w = indent(line)
		v = v empty; empty = ""
		v = v substr(line, w + 1) (style == "|" ? "\n" : " ")
	}
	if (style == ">") sub(/ $/, "\n", v)
	if (chomp == "-") sub(/\n$/, "", v)
	if (chomp == "+") v = v empty
	emit(path, v)
}

# ---- flow text: B is the text, q the place in it; more lines are pulled in when it ends too early.
function more() {
	if (p >= n) { failed = 1; return 0 }
	p++
	sub(/^ +/, " ", L[p])
	B = B L[p]
	return 1
}
function blanks(   c) {
	while (!failed) {
		if (q > length(B)) { if (!more()) return; continue }
		c = substr(B, q, 1)
		if (c == " " || c == "\t") q++
		else if (c == "#" && substr(B, q - 1, 1) ~ /[ \t]/) q = length(B) + 1
		else return
	}
}
function flow(path, depth,   c, idx, k, close_) {
	if (depth > 20) { failed = 1; return }
	c = substr(B, q, 1)
	if (c == "[" || c == "{") {
		close_ = c == "[" ? "]" : "}"
		q++; idx = 0
		while (!failed) {
			blanks(); if (failed) return
			if (substr(B, q, 1) == close_) { q++; return }
			if (c == "[") flow(path "." idx++, depth + 1)
			else {
				k = scalar(":"); blanks(); if (failed) return
				if (substr(B, q, 1) == ":") { q++; blanks(); if (failed) return }
				else { failed = 1; return }
				flow(path "." k, depth + 1)
			}
			blanks(); if (failed) return
			if (substr(B, q, 1) == ",") q++
			else if (substr(B, q, 1) != close_) { failed = 1; return }
		}
		return
	}
	k = scalar("")
	if (!failed) emit(path, k)
}
function scalar(stop,   c, from, t) {
	c = substr(B, q, 1)
	if (c == "\"" || c == "'") return quoted()
	from = q
	while (q <= length(B)) {
		c = substr(B, q, 1)
		if (c == "," || c == "]" || c == "}" || (stop != "" && c == stop)) break
		q++
	}
	t = substr(B, from, q - from)
	sub(/[ \t]+$/, "", t)
	return t
}
function quoted(   c, v, d, m) {
	d = substr(B, q, 1); q++; v = ""
	while (1) {
		if (q > length(B)) { sub(/[ \t]+$/, "", v); if (!more()) return v; continue }
		# everything up to the next character that means something, in one step
		m = substr(B, q)
		if (match(m, d == "'" ? "'" : "[\"\\\\]")) m = substr(m, 1, RSTART - 1)
		v = v m; q += length(m)
		if (q > length(B)) continue
		c = substr(B, q, 1)
		if (d == "'") {
			if (substr(B, q + 1, 1) == "'") { v = v "'"; q += 2; continue }
			q++; return v
		}
		if (c == "\"") { q++; return v }
		c = substr(B, q + 1, 1); q += 2
		if (c == "n") v = v "\n"
		else if (c == "t") v = v "\t"
		else if (c == "r") v = v "\r"
		else if (c == "0") v = v
		else if (c == "x") { v = v utf8(hex(substr(B, q, 2))); q += 2 }
		else if (c == "u") { v = v utf8(hex(substr(B, q, 4))); q += 4 }
		else if (c == "") { if (!more()) return v; sub(/^ /, "", B) }   # \ at the end of a line joins it with the next
		else v = v c
	}
}
function hex(s,   x, j) {
	x = 0
	for (j = 1; j <= length(s); j++) x = x * 16 + index("0123456789abcdef", tolower(substr(s, j, 1))) - 1
	return x
}
function utf8(x) {
	if (x < 128) return sprintf("%c", x)
	if (x < 2048) return sprintf("%c%c", 192 + int(x / 64), 128 + x % 64)
	return sprintf("%c%c%c", 224 + int(x / 4096), 128 + int(x / 64) % 64, 128 + x % 64)
}
