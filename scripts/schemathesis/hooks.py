"""What Schemathesis has to know beside the schema (cli/tests/it/fuzz.rs)."""

import re

import schemathesis

# Checks that no JSON Schema can say: requests that they refuse fit the schema all the same.
BEYOND_THE_SCHEMA = [
    (r"", r"at least one of name, vcpus, memory_mib, tags, description, boot_order and autostart is needed"),
    (r"", r"at least one of link, rx_kb_per_s and tx_kb_per_s is needed"),
    (r"ip", r"(?!must be an IPv4 address).*"),
    (r"mac", r"is in use by"),
    (r"", r"at least one limit is needed"),
    (r"template", r"is needed, or an ISO image"),
    (r"total_(iops|bytes_per_s)", r"can't stand beside"),
    (r"boot_order", r"names network, and the VM has no interface"),
    (r"iso", r"is not an ISO 9660 image|is an image of Vmyard's own"),
    (r"cloud_init", r"has no cloud-init to read it|there is no template with cloud-init"),
    (r"cloud_init\.user", r"is needed for a password or keys"),
    (r"(cloud_init\.)?ssh_keys\[\d+\]|public_key", r"is no whole OpenSSH public key|is a certificate|is a DSA key|is an RSA key of|of a kind that isn't known"),
    (r"bits", r"is for RSA keys only"),
    (r"cloud_init\.(user_data|vendor_data)", r"is not the YAML that cloud-init takes|must not be MIME|must have at most \d+ bytes"),
    (r"(cloud_init\.)?password", r"at most 511 bytes"),
    (r"cloud_init\.network_config(\.(ethernets|bonds|bridges|vlans))?", r"names no interface|must have at most \d+ bytes as JSON|^\S+\.(dhcp|optional|accept-ra|wakeonlan|addresses|gateway|nameservers|routes|match)"),
    (r"networks\[\d+\]\.(addresses|gateway|nameservers)(\[\d+\])?", r"must be an IP address|is for an interface with addresses|can't stand beside|which is there twice|in none of the networks|with its prefix length|has no cloud-init|there is no template"),
    (r"ssh_keys", r"needs at least one key, or keypairs|together for cloud-init"),
    (r"user", r"must be a Unix user name"),
    (r"command", r"must begin with a program"),
    (r"cursor", r"is not one that this method gave"),
    (r"disk_gib", r"must be at least .*, the size of template|is needed without a template"),
    (r"expires_at", r"must be in the future"),
    (r"file", r"is needed, or volume|there is no file|is refused|can't be read|without '\.\.'|lies in the directory"),
    (r"format", r"is given by the"),
    (r"max_(vcpus|memory_mib)", r"must be at least (vcpus|memory_mib) \("),
    (r"name", r"must not have the form of a UUID"),
    (r"networks\[\d+\]\.ip", r"(?!must be an IPv4 address).*"),
    (r"networks\[\d+\]\.mac", r"is in use by|another interface of this request"),
    (r"pool", r"must not be vmyard-seeds"),
    (r"size_gib", r"is needed for a blank volume|must be at least"),
    (r"vm", r"is needed for a snapshot's name|says (which disk of a|whose) snapshot"),
    (r"device", r"is .*, and snapshot|says which disk of a snapshot"),
    (r"snapshot", r"can't be given together with another source"),
    (r"node", r"must be .*, where the (snapshot|image) is"),
    (r"memory", r"is not there to be saved"),
    (r"quiesce", r"can't be required together with memory"),
    (r"exclude_disks", r"names .*, which VM"),
    (r"volume", r"can't be given together with another source"),
    (r"start", r"must be before `end`|days before `end`"),
    (r"url", r"is no URL|must begin with|must have no password"),
    (r"step_s", r"is the most; the least for this range is"),
]

# What the dictionaries in schemathesis.toml have.
KEPT = ("fuzz-a", "fuzz-b", "tiny")


def is_beyond_the_schema(fault):
    """Whether no schema could have said this."""
    return any(re.fullmatch(field, fault["field"]) and re.search(text, fault["message"]) for field, text in BEYOND_THE_SCHEMA)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """Drops the failure that a request which fits the schema was refused, where every fault in it is beyond the schema."""
    if type(failure).__name__ != "RejectedPositiveData" or response.status_code != 400:
        return True
    faults = response.json()["errors"]
    return not all(is_beyond_the_schema(fault) for fault in faults)


@schemathesis.hook
def map_body(context, body):
    """Changes a request that would get in the way of the others."""
    if not isinstance(body, dict):
        return body
    path = context.operation.path
    # By the schema a guest has up to an hour to go down: such a call is left to its task.
    if path in ("/api/stop-vm", "/api/reboot-vm", "/api/detach-volume", "/api/detach-network") and body.get("wait") in (None, True):
        return {**body, "wait": False}
    # How long the primes of an RSA key take to be found is chance's: the same.
    if path == "/api/create-keypair" and body.get("algorithm") == "rsa" and body.get("wait") in (None, True):
        return {**body, "wait": False}
    # Nothing is sent to where a tool's whim leads.
    if path == "/api/create-webhook" and re.match("https?:", str(body.get("url")), re.IGNORECASE):
        return {**body, "url": "http://127.0.0.1:1/"}
    # What the other calls are to find keeps its name, and isn't deleted.
    if path == "/api/modify-vm-spec" and body.get("vm") in KEPT and body.get("name") is not None:
        return {**body, "plan": True}
    if path in ("/api/delete-vm", "/api/delete-template") and (body.get("vm") or body.get("template")) in KEPT:
        return {**body, "plan": True}
    return body
