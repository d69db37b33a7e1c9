# Takes a MIME multipart message apart: every part's body to OUT.partN (or OUT.partN.b64 when it is in base64).
# Nested multiparts are read the same way: their boundaries are all remembered.
{ sub(/\r$/, "") }
state == "" { state = "head" }
substr($0, 1, 2) == "--" {
	line = substr($0, 3); sub(/[ \t]+$/, "", line)
	if (line in boundary) { close(file); file = ""; state = "head"; enc = ""; held = ""; next }
	if (substr(line, length(line) - 1) == "--" && (substr(line, 1, length(line) - 2) in boundary)) { close(file); file = ""; state = "skip"; next }
}
state == "head" {
	if ($0 == "") {
		header(held); held = ""
		if (multi) { state = "skip"; multi = 0 }
		else { state = "body"; file = sprintf("%s.part%02d%s", out, ++n, enc == "base64" ? ".b64" : "") }
		next
	}
	if ($0 ~ /^[ \t]/) held = held $0
	else { header(held); held = $0 }
	next
}
state == "body" { print >file }
function header(h,   l) {
	l = tolower(h)
	if (l ~ /^content-transfer-encoding:/) { sub(/^[^:]*:[ \t]*/, "", l); sub(/[ \t;].*$/, "", l); enc = l }
	if (l ~ /^content-type:[ \t]*multipart\//) {
		multi = 1
		if (match(l, /boundary=/)) {
			h = substr(h, RSTART + 9)
			if (substr(h, 1, 1) == "\"") { h = substr(h, 2); sub(/".*$/, "", h) } else sub(/[; \t].*$/, "", h)
			boundary[h] = 1
		}
	}
}
