//! Who may call what: tokens, browsers' sessions, and the audit of it. Secrets are found nowhere.

use crate::lab::{Answer, Directory, Lab, SOON, Server, eventually, http_client};
use api::Time;
use serde_json::{Value, json};
use std::{fs, path::Path, time::Duration};

/// What a server has written into its directory.
pub const SERVER_FILES: [&str; 3] = ["vmyard.db", "vmyard.db-wal", "server.log"];

/// A server whose one node can't be reached: enough for what needs no VM.
pub fn bare() -> (Server, Directory) {
    let dir = Directory::new();
    let config = format!("[nodes.local]\nuri = \"qemu+unix:///system?socket={}/none\"\n", dir.path.display());
    fs::write(dir.path.join("vmyard.toml"), config).unwrap();
    (Server::start(&dir.path, &[]), dir)
}

pub fn code(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

pub fn called_with(server: &Server, token: &str, method: &str, body: Value) -> Answer {
    server.post(method, Some(token), "application/json", body.to_string())
}

#[track_caller]
pub fn ok(server: &Server, method: &str, body: Value) -> Value {
    let answer = server.call(method, body);
    assert_eq!(answer.status, 200, "{method}: {answer:?}");
    answer.body
}

#[track_caller]
pub fn token(server: &Server, name: &str, role: &str) -> String {
    let made = ok(server, "create-token", json!({"name": name, "role": role}));
    assert_eq!((&made["name"], &made["role"], &made["expired"]), (&json!(name), &json!(role), &json!(false)));
    made["token"].as_str().unwrap().to_owned()
}

/// Methods with their least role, and whether they change something, as the server's own document says.
fn methods(server: &Server) -> Vec<(String, String, bool)> {
    let document = server.get("/api/openapi.json").body;
    let method = |(path, item): (&String, &Value)| {
        let access = item["post"]["x-access"].as_str().unwrap().to_owned();
        (path.trim_start_matches("/api/").to_owned(), access, !item["post"]["responses"]["202"].is_null())
    };
    document["paths"].as_object().unwrap().iter().map(method).collect()
}

fn seconds_ahead(seconds: f64) -> Value {
    json!(Time(Time::now().0 + (seconds * 1000.0) as i64))
}

/// Everything that a refused call must leave as it is.
fn picture(lab: &Lab) -> Value {
    json!({
        "vms": lab.ok("list-vms", json!({}))["vms"].as_array().unwrap().iter()
            .map(|vm| json!([vm["id"], vm["name"], vm["state"], vm["tags"]])).collect::<Vec<_>>(),
        "tasks": lab.ok("list-tasks", json!({}))["total"],
        "templates": lab.ok("list-templates", json!({})),
        "tokens": lab.ok("list-tokens", json!({})),
        "networks": lab.ok("list-networks", json!({}))["total"],
        "pools": lab.ok("list-storage-pools", json!({}))["total"],
        "files": lab.files(),
    })
}

/// What changes nothing, but lets somebody see into a VM: that is in the audit, too.
const OPENING: [&str; 5] =
    ["get-vnc-console", "get-vm-screenshot", "get-serial-console", "get-serial-log", "diagnose-vm"];

#[test]
fn each_role_does_its_own_and_no_more() {
    let lab = Lab::own();
    let server = &lab.server;
    let vm = lab.create("guarded").deaf();
    let (viewer, operator) = (token(server, "vera", "viewer"), token(server, "otto", "operator"));
    // What would be done if it were allowed.
    let bodies = |method: &str| match method {
        "create-vm" => json!({"name": "never", "template": "tiny", "vcpus": 1, "memory_mib": 64}),
        "create-token" => json!({"name": "never", "role": "administrator"}),
        "delete-token" => json!({"token": "otto"}),
        "delete-template" => json!({"template": "tiny"}),
        "register-template" => json!({"name": "never", "file": crate::lab::tiny()}),
        "list-tokens" | "list-audit" => json!({}),
        _ => json!({"vm": vm.name}),
    };
    let before = picture(&lab);
    let methods = methods(server);
    let (mut refused, mut audited) = (0, 0);
    for (name, access, mutates) in &methods {
        for (role, secret, may) in [
            ("viewer", &viewer, access == "viewer" || access == "anyone"),
            ("operator", &operator, access != "administrator"),
        ] {
            if may {
                continue;
            }
            let answer = called_with(server, secret, name, bodies(name));
            assert_eq!(code(&answer), (403, "forbidden"), "{name} as {role}: {answer:?}");
            let detail = answer.body["detail"].as_str().unwrap();
            assert!(detail.contains(name.as_str()) && detail.contains(access.as_str()), "{detail}");
            refused += 1;
            audited += u64::from(*mutates || OPENING.contains(&name.as_str()));
        }
        if *mutates {
            assert!(access == "operator" || access == "administrator", "{name} changes something for {access}s");
        }
    }
    assert!(refused > 10 && audited >= 10, "{refused} {audited}");
    assert_eq!(picture(&lab), before, "a refused call changed something");

    // What they may do works, and each refusal is in the audit.
    assert_eq!(called_with(server, &viewer, "describe-vm", json!({"vm": vm.name})).status, 200);
    let started = called_with(server, &operator, "start-vm", json!({"vm": vm.name}));
    assert_eq!(started.status, 200, "{started:?}");
    let audit = |filter: Value| lab.ok("list-audit", filter);
    let forbidden = |caller: &str| {
        let page = audit(json!({"caller": caller, "limit": 1000}));
        page["audit"].as_array().unwrap().iter().filter(|entry| entry["outcome"] == "forbidden").count() as u64
    };
    assert_eq!(forbidden("vera") + forbidden("otto"), audited);
    let page = audit(json!({"caller": "otto", "target": vm.name, "method": "start-vm"}));
    let entry = &page["audit"][0];
    assert_eq!((&page["total"], &entry["outcome"]), (&json!(1), &json!("accepted")), "{page}");
    assert_eq!(entry["target"], json!({"kind": "vm", "id": vm.id, "name": vm.name}));
    assert_eq!(lab.ok("describe-task", json!({"task": entry["task"]}))["caller"], "otto");
    assert_eq!(entry["remote"], "127.0.0.1");

    // An operator cancels only what is theirs; an administrator what is anybody's.
    let stop = json!({"vm": vm.name, "timeout_s": 60, "wait": false});
    let task = lab.server.call("stop-vm", stop.clone()).body["task"]["id"].clone();
    let answer = called_with(server, &operator, "cancel-task", json!({"task": task}));
    assert_eq!(code(&answer), (403, "forbidden"), "{answer:?}");
    assert_eq!(lab.ok("describe-task", json!({"task": task}))["state"], "running");
    lab.ok("cancel-task", json!({"task": task}));
    for canceller in [&operator, &server.token] {
        let task = called_with(server, &operator, "stop-vm", stop.clone()).body["task"]["id"].clone();
        let answer = called_with(server, canceller, "cancel-task", json!({"task": task}));
        assert_eq!((answer.status, &answer.body["state"]), (200, &json!("failed")), "{answer:?}");
    }
    lab.ok("stop-vm", json!({"vm": vm.name, "force": true}));
}

#[test]
fn tokens_are_told_once_expire_and_end_at_once() {
    let (mut server, dir) = bare();
    let viewer = token(&server, "Vera", "viewer");
    for (wrong, field) in [
        (json!({"name": "a", "role": "root"}), "role"),
        (json!({"name": "a", "role": "anyone"}), "role"),
        (json!({"name": "a"}), "role"),
        (json!({"name": "a/b", "role": "viewer"}), "name"),
        (json!({"name": "a", "role": "viewer", "expires_at": "tomorrow"}), "expires_at"),
        (json!({"name": "a", "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"}), "expires_at"),
        (json!({"name": "a", "role": "viewer", "expires_at": 1}), "expires_at"),
    ] {
        let answer = server.call("create-token", wrong.clone());
        assert_eq!((code(&answer), &answer.body["errors"][0]["field"]), ((400, "invalid"), &json!(field)), "{wrong}");
    }
    for name in ["vERA", "Admin"] {
        let answer = server.call("create-token", json!({"name": name, "role": "viewer"}));
        assert_eq!(code(&answer), (409, "already_exists"), "{answer:?}");
    }

    // None, a wrong one, and one that expires under way.
    let with = |server: &Server, token: Option<&str>| server.post("list-vms", token, "application/json", "{}");
    assert_eq!(code(&with(&server, None)), (401, "unauthenticated"));
    assert_eq!(code(&with(&server, Some("vmy_wrong"))), (401, "unauthenticated"));
    let request = json!({"name": "brief", "role": "administrator", "expires_at": seconds_ahead(15.0)});
    let brief = ok(&server, "create-token", request)["token"].as_str().unwrap().to_owned();
    assert_eq!(with(&server, Some(&brief)).status, 200);
    let session = sign_in(&server, &brief);
    assert!((1..=15).contains(&max_age(&session)), "no longer than the token: {session}");
    let cookie = cookie_of(&session);
    let answer =
        eventually("it expires", SOON, || Some(with(&server, Some(&brief))).filter(|answer| answer.status != 200));
    assert_eq!(code(&answer), (401, "unauthenticated"));
    assert!(answer.body["detail"].as_str().unwrap().contains("has expired"), "{answer:?}");
    let (answer, _) = browse(&server, "list-vms", &[("cookie", &cookie), ("origin", &server.url)], json!({}));
    assert_eq!(code(&answer), (401, "unauthenticated"));
    let listed = ok(&server, "list-tokens", json!({}));
    let expired = |name: &str| {
        let tokens = listed["tokens"].as_array().unwrap();
        tokens.iter().find(|token| token["name"] == name).unwrap()["expired"].clone()
    };
    assert_eq!((expired("brief"), expired("Vera"), expired("admin")), (json!(true), json!(false), json!(false)));
    assert_eq!(ok(&server, "list-tokens", json!({"limit": 2}))["tokens"][1]["name"], "brief");

    // The caller is told again for a while, who else asks isn't; after a restart nobody is.
    let request = json!({"name": "again", "role": "viewer", "client_token": "once"});
    let first = ok(&server, "create-token", request.clone());
    assert_eq!((first["secret_expired"].clone(), first["token"].is_string()), (json!(false), true));
    assert_eq!(ok(&server, "create-token", request.clone()), first);
    let task = ok(&server, "list-tasks", json!({"method": "create-token", "limit": 1}))["tasks"][0]["id"].clone();
    assert_eq!(ok(&server, "describe-task", json!({"task": task}))["result"], first);
    let seen = called_with(&server, &viewer, "describe-task", json!({"task": task})).body["result"].clone();
    assert_eq!((&seen["token"], &seen["secret_expired"]), (&json!(null), &json!(true)), "{seen}");
    let later = server.call("create-token", json!({"name": "later", "role": "viewer", "wait": false}));
    assert_eq!(later.status, 202);
    let secret = eventually("it is made", SOON, || {
        let task = ok(&server, "describe-task", json!({"task": later.body["task"]["id"]}));
        task["result"]["token"].as_str().map(str::to_owned)
    });
    assert_eq!(with(&server, Some(&secret)).status, 200);
    server.kill_and_restart(&[]);
    let replayed = ok(&server, "create-token", request);
    assert_eq!((&replayed["token"], &replayed["secret_expired"]), (&json!(null), &json!(true)), "{replayed}");
    assert_eq!(with(&server, first["token"].as_str()).status, 200);

    // Deleted, it ends at once, and so do its sessions. The administrator's own stays.
    let cookie = cookie_of(&sign_in(&server, &viewer));
    let browsed =
        |server: &Server| browse(server, "list-vms", &[("cookie", &cookie), ("origin", &server.url)], json!({})).0;
    assert_eq!(browsed(&server).status, 200);
    assert_eq!(ok(&server, "delete-token", json!({"token": "VERA"}))["name"], "Vera");
    assert_eq!(code(&with(&server, Some(&viewer))), (401, "unauthenticated"));
    assert_eq!(code(&browsed(&server)), (401, "unauthenticated"));
    assert_eq!(code(&server.call("delete-token", json!({"token": "Vera"}))), (404, "not_found"));
    let answer = server.call("delete-token", json!({"token": "ADMIN"}));
    assert_eq!(code(&answer), (409, "wrong_state"));
    assert!(answer.body["hint"].as_str().unwrap().contains("admin.token"), "{answer:?}");

    // Killed before anybody was told: the token is taken back, its name is free.
    for point in ["before", "after"] {
        server.kill_and_restart(&[("VMYARD_CRASH_AT", &format!("record-token:{point}"))]);
        let request = json!({"name": "phoenix", "role": "viewer"});
        assert_eq!(server.call("create-token", request.clone()).status, 0);
        server.kill_and_restart(&[]);
        ok(&server, "create-token", request);
        ok(&server, "delete-token", json!({"token": "phoenix"}));
    }
    for secret in [&viewer, &brief, &secret, &server.token.clone()] {
        is_nowhere(&dir.path, secret, &SERVER_FILES);
    }
    is_nowhere(&dir.path, cookie.split_once('=').unwrap().1, &SERVER_FILES);
}

/// No file below has this secret, but for the administrator's own. These are there.
#[track_caller]
pub fn is_nowhere(dir: &Path, secret: &str, in_place: &[&str]) {
    assert!(secret.len() >= 40, "{secret}");
    let seen = crate::lab::is_nowhere(dir, &[secret], |path| path.ends_with("admin.token"));
    for name in in_place {
        assert!(seen.iter().any(|seen| seen == name), "{name} is not there: {seen:?}");
    }
}

/// Posts as a browser does, with these headers. Returns the cookie that is set, too.
fn browse(server: &Server, method: &str, headers: &[(&str, &str)], body: Value) -> (Answer, Option<String>) {
    let client = http_client(Duration::from_secs(30));
    let mut request = client.post(format!("{}/api/{method}", server.url)).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.body(body.to_string()).send().unwrap();
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (cookie, kind, status) = (text("set-cookie"), text("content-type"), response.status().as_u16());
    let body = response.json().unwrap();
    (Answer { status, kind: kind.unwrap_or_default(), body }, cookie)
}

/// The `Set-Cookie` header of a sign-in.
#[track_caller]
fn sign_in(server: &Server, token: &str) -> String {
    let (answer, cookie) = browse(server, "sign-in", &[("origin", &server.url)], json!({"token": token}));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.body.to_string().contains("vmys_"), "only the cookie has the secret: {answer:?}");
    cookie.unwrap()
}

/// The `Cookie` header that a browser makes of it.
fn cookie_of(set_cookie: &str) -> String {
    set_cookie.split(';').next().unwrap().to_owned()
}

fn max_age(set_cookie: &str) -> u32 {
    set_cookie.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap()
}

#[test]
fn a_session_is_for_pages_of_this_server() {
    let (server, dir) = bare();
    let operator = token(&server, "otto", "operator");
    let set = sign_in(&server, &operator);
    assert!(set.starts_with("vmyard_session=vmys_") && set.contains("; HttpOnly; SameSite=Strict;"), "{set}");
    assert!(!set.contains("Secure") && (12 * 3600 - 5..=12 * 3600).contains(&max_age(&set)), "{set}");
    let (cookie, own) = (cookie_of(&set), server.url.as_str());
    let call = |method: &str, headers: &[(&str, &str)]| browse(&server, method, headers, json!({}));

    assert_eq!(call("list-vms", &[("cookie", &cookie), ("origin", own)]).0.status, 200);
    // With others' cookies of this host around it.
    assert_eq!(call("list-vms", &[("cookie", &format!("a=b; {cookie}; c=d")), ("origin", own)]).0.status, 200);
    let port = own.rsplit(':').next().unwrap();
    for foreign in ["http://evil.example", "null", "http://127.0.0.1:1", &format!("http://localhost:{port}")] {
        let (answer, _) = call("list-vms", &[("cookie", &cookie), ("origin", foreign)]);
        assert_eq!(code(&answer), (403, "forbidden"), "{foreign}: {answer:?}");
        assert!(answer.body["hint"].is_string() && answer.body["detail"].as_str().unwrap().contains(foreign));
        let (answer, set) = browse(&server, "sign-in", &[("origin", foreign)], json!({"token": operator}));
        assert_eq!((code(&answer), set), ((403, "forbidden"), None), "{foreign}");
    }
    assert_eq!(code(&call("list-vms", &[("cookie", &cookie)]).0), (403, "forbidden"), "no origin");
    // What is only read needs none: browsers don't send it then.
    let read = |origin: Option<&str>| {
        let client = http_client(Duration::from_secs(30));
        let mut request = client.get(format!("{own}/api/events?after=0")).header("cookie", &cookie);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.send().unwrap().status().as_u16()
    };
    assert_eq!((read(None), read(Some(own)), read(Some("http://evil.example"))), (200, 200, 403));
    // A bearer token needs none, and counts when both are there.
    let bearer = format!("Bearer {operator}");
    assert_eq!(call("list-vms", &[("authorization", &bearer), ("origin", "http://evil.example")]).0.status, 200);
    let both = [("authorization", "Bearer wrong"), ("cookie", cookie.as_str()), ("origin", own)];
    assert_eq!(code(&call("list-vms", &both).0), (401, "unauthenticated"));
    // The session has its token's role, and is worth nothing as a token; a token is worth nothing as a cookie.
    assert_eq!(code(&call("list-tokens", &[("cookie", &cookie), ("origin", own)]).0), (403, "forbidden"));
    let as_token = format!("Bearer {}", cookie.split_once('=').unwrap().1);
    assert_eq!(code(&call("list-vms", &[("authorization", &as_token)]).0), (401, "unauthenticated"));
    let as_cookie = format!("vmyard_session={operator}");
    assert_eq!(code(&call("list-vms", &[("cookie", &as_cookie), ("origin", own)]).0), (401, "unauthenticated"));
    // Behind a proxy that speaks HTTPS the cookie stays off the clear.
    let secure = [("origin", "https://vm.example"), ("host", "vm.example")];
    assert!(browse(&server, "sign-in", &secure, json!({"token": operator})).1.unwrap().ends_with("; Secure"));

    // Signing out ends it, and no other.
    let other = cookie_of(&sign_in(&server, &operator));
    assert_eq!(code(&call("sign-out", &[("authorization", &bearer)]).0), (409, "wrong_state"));
    assert_eq!(code(&call("sign-out", &[("cookie", &cookie)]).0), (403, "forbidden"));
    let (answer, cleared) = call("sign-out", &[("cookie", &cookie), ("origin", own)]);
    assert_eq!((answer.status, &answer.body["name"]), (200, &json!("otto")));
    assert!(cleared.unwrap().starts_with("vmyard_session=; Path=/; HttpOnly; SameSite=Strict; Max-Age=0"));
    assert_eq!(code(&call("sign-out", &[("cookie", &cookie), ("origin", own)]).0), (401, "unauthenticated"));
    assert_eq!(code(&call("list-vms", &[("cookie", &cookie), ("origin", own)]).0), (401, "unauthenticated"));
    assert_eq!(call("list-vms", &[("cookie", &other), ("origin", own)]).0.status, 200);

    // Wrong tokens: some are told so, then nobody from here is asked any more. Requests that are none don't count.
    for _ in 0..20 {
        assert_eq!(code(&browse(&server, "sign-in", &[], json!({"token": 1})).0), (400, "invalid"));
    }
    let wrong = || browse(&server, "sign-in", &[], json!({"token": "vmy_wrong"})).0;
    for _ in 0..10 {
        assert_eq!(code(&wrong()), (401, "unauthenticated"));
    }
    let answer = wrong();
    assert_eq!(code(&answer), (429, "rate_limited"));
    assert!(answer.body["hint"].as_str().unwrap().contains("try again in"), "{answer:?}");
    let (answer, _) = browse(&server, "sign-in", &[], json!({"token": operator}));
    assert_eq!(code(&answer), (429, "rate_limited"), "nor with the right one");
    assert_eq!(called_with(&server, &operator, "list-vms", json!({})).status, 200, "but a bearer token works");

    let page = ok(&server, "list-audit", json!({"method": "sign-in", "limit": 1000}));
    let outcomes = |outcome: &str| {
        let entries = page["audit"].as_array().unwrap().iter();
        entries.filter(|entry| entry["outcome"] == outcome).map(|entry| entry["caller"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((outcomes("accepted"), outcomes("unauthenticated")), (vec![json!("otto"); 3], vec![json!(null); 10]));
    assert_eq!(ok(&server, "list-audit", json!({"method": "sign-out"}))["total"], 1);
    is_nowhere(&dir.path, &operator, &SERVER_FILES);
    is_nowhere(&dir.path, other.split_once('=').unwrap().1, &SERVER_FILES);
}

#[test]
fn the_audit_has_each_change_and_nothing_of_the_requests() {
    let (server, dir) = bare();
    let audit = |filter: Value| ok(&server, "list-audit", filter);
    let begun = json!(Time::now());
    let request = json!({"name": "one", "role": "viewer", "client_token": "t"});
    for _ in 0..2 {
        ok(&server, "create-token", request.clone());
    }
    for (body, outcome) in [
        (json!({"name": "one", "role": "viewer"}), "already_exists"),
        (json!({"name": "hunter2hunter2", "role": "hunter2hunter2"}), "invalid"),
        (json!({"name": "two", "role": "viewer", "client_token": "t"}), "token_reused"),
    ] {
        let answer = server.call("create-token", body);
        assert_eq!(answer.body["code"], outcome, "{answer:?}");
        let page = audit(json!({"limit": 1}));
        let entry = &page["audit"][0];
        assert_eq!(
            (&entry["outcome"], &entry["target"], &entry["task"]),
            (&json!(outcome), &json!(null), &json!(null))
        );
        assert_eq!((&entry["request_id"], &entry["caller"]), (&answer.body["request_id"], &json!("admin")), "{page}");
    }
    // What reads, and what only plans, is not in it.
    let count = || audit(json!({}))["total"].as_u64().unwrap();
    let before = count();
    ok(&server, "list-tokens", json!({}));
    ok(&server, "create-token", json!({"name": "two", "role": "viewer", "plan": true}));
    server.call("delete-token", json!({"token": "nobody", "plan": true}));
    assert_eq!(count(), before);

    let page = audit(json!({"target": "ONE", "since": begun}));
    assert_eq!(page["total"], 1, "{page}");
    let accepted = &page["audit"][0];
    let task = ok(&server, "describe-task", json!({"task": accepted["task"]}));
    assert_eq!((&task["method"], &task["target"]), (&json!("create-token"), &accepted["target"]));
    let page = audit(json!({"method": "create-token"}));
    let outcomes: Vec<_> = page["audit"].as_array().unwrap().iter().map(|entry| entry["outcome"].clone()).collect();
    assert_eq!(outcomes, ["token_reused", "invalid", "already_exists", "repeated", "accepted"]);
    assert_eq!(page["audit"][3]["task"], accepted["task"]);
    assert_eq!(audit(json!({"until": begun}))["total"], 0);

    // Page by page it is the same, also when there is more meanwhile.
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let page = audit(json!({"method": "create-token", "limit": 2, "cursor": cursor}));
        seen.extend(page["audit"].as_array().unwrap().iter().map(|entry| entry["outcome"].clone()));
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
        server.call("create-token", json!({}));
    }
    assert_eq!(seen, outcomes);
    assert_eq!(code(&server.call("list-audit", json!({"cursor": "junk"}))), (400, "invalid"));
    let entries = fs::read(dir.path.join("data/vmyard.db-wal")).unwrap();
    assert!(!entries.windows(7).any(|window| window == b"hunter2"), "a request is in the database");
}

#[test]
fn tokens_and_audit_by_the_command_line() {
    let (server, _dir) = bare();
    let ok = |args: &[&str]| {
        let (code, text) = server.cli(args);
        assert_eq!(code, 0, "{args:?}: {text}");
        text
    };
    let secret = ok(&["token", "create", "ci", "--role", "viewer", "--days", "1"]).trim().to_owned();
    assert!(secret.starts_with("vmy_") && !secret.contains(char::is_whitespace), "{secret}");
    assert!(ok(&["--token", &secret, "task", "list"]).contains("create-token"));
    let listed = ok(&["token", "list"]);
    assert!(listed.contains("ci") && listed.contains("admin") && !listed.contains("vmy_"), "{listed}");
    let (code, text) = server.cli(&["--token", &secret, "token", "list"]);
    assert!(code == 1 && text.contains("forbidden") && text.contains("hint"), "{text}");
    let (code, text) = server.cli(&["--token", &secret, "token", "delete", "ci"]);
    assert!(code == 1 && text.contains("forbidden"), "{text}");
    assert!(ok(&["token", "create", "no", "--role", "operator", "--plan"]).contains("record-token"));
    for wrong in [&["--role", "root"][..], &["--role", "viewer", "--expires-at", "soon"], &[]] {
        let (code, text) = server.cli(&[&["token", "create", "x"], wrong].concat());
        assert_eq!(code, 2, "{text}");
    }
    let audit = ok(&["audit", "list", "--caller", "ci", "--since", "2020-01-01T00:00:00Z"]);
    assert!(
        audit.contains("delete-token") && audit.contains("forbidden") && !audit.contains("create-token"),
        "{audit}"
    );
    assert!(ok(&["audit", "list", "--target", "ci", "--limit", "1"]).contains("accepted"));
    assert_eq!(ok(&["token", "delete", "ci"]), "token ci is deleted\n");
    assert_eq!(server.cli(&["--token", &secret, "task", "list"]).0, 1);
}
