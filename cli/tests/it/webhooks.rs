//! Events are sent to webhooks, in their order, at least once each, and signed.

use crate::{
    access::{bare, code, ok},
    lab::{Directory, Lab, SOON, Server, eventually, request, trouble::Clock},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

/// What a receiver was sent.
struct Message {
    headers: HashMap<String, String>,
    body: String,
}

impl Message {
    fn event(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Kind, and what matters of it.
    fn short(&self) -> String {
        let event = self.event();
        let more = event["details"]["state"].as_str().or(event["details"]["method"].as_str());
        format!("{} {}", event["kind"].as_str().unwrap(), more.unwrap_or_default())
    }
}

/// A receiver of webhooks: answers as it is told.
struct Hook {
    url: String,
    /// The HTTP status of answers; 0: none ever comes.
    status: Arc<AtomicU16>,
    got: Receiver<Message>,
}

impl Hook {
    fn start() -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook?key=in-the-address", listener.local_addr().unwrap());
        let status = Arc::new(AtomicU16::new(204));
        let (sender, got) = channel();
        let answers = Arc::clone(&status);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (sender, answers) = (sender.clone(), Arc::clone(&answers));
                std::thread::spawn(move || while answer(stream.as_ref().unwrap(), &answers, &sender).is_some() {});
            }
        });
        Hook { url, status, got }
    }

    fn answer(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }

    #[track_caller]
    fn next(&self) -> Message {
        self.got.recv_timeout(SOON).expect("nothing was sent")
    }

    /// What is sent up to something.
    #[track_caller]
    fn until(&self, short: &str) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            let message = self.next();
            let found = message.short() == short;
            all.push(message);
            if found {
                return all;
            }
        }
    }
}

fn answer(stream: &TcpStream, status: &AtomicU16, sender: &std::sync::mpsc::Sender<Message>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut headers = HashMap::new();
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    assert!(line.starts_with("POST /hook?key=in-the-address HTTP/1.1"), "{line}");
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    sender.send(Message { headers, body: String::from_utf8(body).unwrap() }).ok()?;
    let status = status.load(Ordering::SeqCst);
    if status == 0 {
        std::thread::sleep(SOON);
        return None;
    }
    write!(&*stream, "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nlocation: /elsewhere\r\n\r\n").ok()
}

/// Checks a signature by another program's cryptography.
#[track_caller]
fn is_signed(message: &Message, secret: &str) {
    let header = |name: &str| message.headers[name].clone();
    let of_openssl = |arguments: &[&str], input: &[u8]| {
        let mut child = Command::new("openssl");
        let mut child = child.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap().stdout
    };
    let key = of_openssl(&["base64", "-d", "-A"], secret.strip_prefix("whsec_").unwrap().as_bytes());
    let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), message.body);
    let mac = of_openssl(
        &["dgst", "-sha256", "-mac", "HMAC", "-macopt", &format!("hexkey:{key}"), "-binary"],
        signed.as_bytes(),
    );
    let expected = String::from_utf8(of_openssl(&["base64", "-A"], &mac)).unwrap();
    assert_eq!(header("webhook-signature"), format!("v1,{expected}"));
}

#[test]
fn events_are_sent_signed_and_in_their_order() {
    let lab = Lab::own();
    let hook = Hook::start();
    let made = lab.ok("create-webhook", json!({"name": "chat", "url": hook.url, "kinds": ["vm-state", "task-done"]}));
    let secret = made["secret"].as_str().unwrap().to_owned();
    let vm = lab.create("sent").start();
    vm.delete();
    let mut all = hook.until("task-done delete-vm");
    let shorts: Vec<String> = all.iter().map(Message::short).collect();
    let states: Vec<_> = shorts.iter().filter(|short| short.starts_with("vm-state")).collect();
    assert_eq!(states[..2], ["vm-state shutoff", "vm-state running"]);
    // That it was made is the first that it is sent.
    assert_eq!(shorts[0], "task-done create-webhook");
    all.iter().for_each(|message| is_signed(message, &secret));
    let id_of = |message: &Message| message.event()["id"].as_u64().unwrap();
    let mut ids: Vec<u64> = all.iter().map(id_of).collect();
    let first = all.remove(0);
    let id = made["id"].as_str().unwrap().replace('-', "");
    assert_eq!(first.headers["webhook-id"], format!("evt_{id}_{}", ids[0]));
    assert_eq!(first.headers["content-type"], "application/json");
    let listed = lab.ok("list-events", json!({"limit": 1000}));
    let same = listed["events"].as_array().unwrap().iter().find(|event| event["id"] == ids[0]).unwrap();
    assert_eq!(first.event(), *same);
    // The history, and what is told to whom.
    let shown = eventually("all is noted", SOON, || {
        // What the index tells has no order with the journal, so it may come behind the task's end.
        ids.extend(hook.got.try_iter().map(|message| id_of(&message)));
        let shown = lab.ok("describe-webhook", json!({"webhook": "CHAT"}));
        (shown["sent_up_to"].as_u64() == ids.last().copied()).then_some(shown)
    });
    assert!(ids.is_sorted(), "{ids:?}");
    let deliveries = shown["deliveries"].as_array().unwrap();
    assert_eq!(deliveries.len(), ids.len());
    for (of_it, id) in deliveries.iter().rev().zip(&ids) {
        assert_eq!(of_it["event"], *id);
        let how = (&of_it["state"], &of_it["attempts"], &of_it["status"]);
        assert_eq!(how, (&json!("delivered"), &json!(1), &json!(204)));
    }
    assert!(!shown.to_string().contains(&secret) && !lab.server.log().contains(&secret));
    assert!(!lab.server.log().contains("in-the-address"));
    lab.ok("delete-webhook", json!({"webhook": "chat"}));
    lab.err("describe-webhook", json!({"webhook": "chat"}), 404, "not_found");
    lab.create("silent").delete();
    std::thread::sleep(Duration::from_millis(500));
    let more: Vec<String> = hook.got.try_iter().map(|message| message.short()).collect();
    assert!(more.is_empty(), "{more:?}");
}

#[test]
fn a_receiver_that_fails_gets_it_again() {
    let mut lab = Lab::own();
    let hook = Hook::start();
    hook.answer(500);
    lab.ok("create-webhook", json!({"name": "shaky", "url": hook.url, "kinds": ["task-done"]}));
    let first = hook.next();
    assert_eq!(first.short(), "task-done create-webhook");
    lab.ok("create-vm", request("meanwhile", json!({})));
    let again = hook.next();
    assert_eq!((&again.headers["webhook-id"], &again.body), (&first.headers["webhook-id"], &first.body));
    let shown = eventually("it is noted", SOON, || {
        let shown = lab.ok("describe-webhook", json!({"webhook": "shaky"}));
        (shown["last_delivery"]["attempts"].as_u64() > Some(1)).then_some(shown)
    });
    let last = &shown["last_delivery"];
    assert_eq!((&last["state"], &last["status"]), (&json!("retrying"), &json!(500)));
    assert!(last["error"].as_str().unwrap().contains("500"), "{last}");
    // A redirect is no answer, a server that dies forgets nothing.
    hook.answer(302);
    lab.server.kill_and_restart(&[]);
    assert_eq!(hook.next().headers["webhook-id"], first.headers["webhook-id"]);
    hook.answer(200);
    lab.ok("delete-vm", json!({"vm": "meanwhile"}));
    let mut shorts: Vec<String> = hook.until("task-done delete-vm").iter().map(Message::short).collect();
    shorts.dedup();
    assert_eq!(shorts, ["task-done create-webhook", "task-done create-vm", "task-done delete-vm"]);
    let shown = lab.ok("describe-webhook", json!({"webhook": "shaky"}));
    let of_first = shown["deliveries"].as_array().unwrap().last().unwrap();
    assert!(of_first["attempts"].as_u64().unwrap() >= 4, "{of_first}");
    assert_eq!((&of_first["state"], &of_first["error"]), (&json!("delivered"), &Value::Null));
    // One that never answers, and one that isn't there, hurt nobody, and can be deleted.
    hook.answer(0);
    lab.ok("create-webhook", json!({"name": "nobody", "url": "http://127.0.0.1:1/"}));
    let begun = Instant::now();
    lab.create("quick").delete();
    eventually("it is tried", SOON, || {
        let nobody = lab.ok("describe-webhook", json!({"webhook": "nobody"}));
        nobody["last_delivery"]["error"].as_str()?.contains("refused").then_some(())
    });
    for webhook in ["shaky", "nobody"] {
        lab.ok("delete-webhook", json!({"webhook": webhook}));
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(lab.server.terminate());
}

#[test]
fn an_event_that_nobody_takes_is_given_up_after_a_day() {
    let (mut server, dir) = bare();
    let clock = Clock::new(&dir.path);
    server.kill_and_restart(&clock.env());
    let hook = Hook::start();
    hook.answer(500);
    ok(&server, "create-webhook", json!({"name": "deaf", "url": hook.url, "kinds": ["task-done"]}));
    let first = hook.next();
    assert_eq!(first.short(), "task-done create-webhook");
    ok(&server, "create-token", json!({"name": "next", "role": "viewer"}));
    clock.set("+25h");
    // The same once more, or twice, and then the next one's turn.
    let all = hook.until("task-done create-token");
    assert!(all[..all.len() - 1].iter().all(|message| message.headers["webhook-id"] == first.headers["webhook-id"]));
    hook.answer(200);
    let shown = eventually("the next one is taken", SOON, || {
        let shown = ok(&server, "describe-webhook", json!({"webhook": "deaf"}));
        (shown["deliveries"][0]["state"] == "delivered").then_some(shown)
    });
    assert_eq!((&shown["deliveries"][1]["state"], &shown["lost"]), (&json!("given_up"), &json!(0)), "{shown}");
}

#[test]
fn killed_while_one_is_made() {
    let (mut server, _dir) = bare();
    for point in ["before", "after"] {
        server.kill_and_restart(&[("VMYARD_CRASH_AT", &format!("record-webhook:{point}"))]);
        let body = json!({"name": "half", "url": "http://127.0.0.1:1/"});
        assert_eq!(server.call("create-webhook", body).status, 0);
        server.kill_and_restart(&[]);
        // Its secret was told to nobody.
        eventually("it is taken back", SOON, || (ok(&server, "list-webhooks", json!({}))["total"] == 0).then_some(()));
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let (server, _dir) = bare();
    for (body, field) in [
        (json!({"name": "a", "url": "junk"}), "url"),
        (json!({"name": "a", "url": "ftp://a/"}), "url"),
        (json!({"name": "a", "url": "https://u:secret@a/"}), "url"),
        (json!({"name": "a", "url": ""}), "url"),
        (json!({"name": "-a", "url": "http://a/"}), "name"),
        (json!({"name": "a", "url": "http://a/", "kinds": ["junk"]}), "kinds[0]"),
    ] {
        let answer = server.call("create-webhook", body.clone());
        assert_eq!(code(&answer), (400, "invalid"), "{body}: {answer:?}");
        assert_eq!(answer.body["errors"][0]["field"], field, "{body}: {answer:?}");
        assert!(!answer.body.to_string().contains("secret@"), "{answer:?}");
    }
    for number in 0..50 {
        let body = json!({"name": format!("w{number:02}"), "url": "http://127.0.0.1:1/", "kinds": ["events-lost"]});
        ok(&server, "create-webhook", body);
    }
    let another = |name: &str| server.call("create-webhook", json!({"name": name, "url": "http://127.0.0.1:1/"}));
    assert_eq!(code(&another("W07")), (409, "already_exists"));
    assert_eq!(code(&another("one-more")), (409, "wrong_state"));
    let page = ok(&server, "list-webhooks", json!({"limit": 20}));
    assert_eq!((&page["total"], &page["webhooks"][19]["name"]), (&json!(50), &json!("w19")));
    let next = ok(&server, "list-webhooks", json!({"cursor": page["next_cursor"]}));
    assert_eq!(next["webhooks"][0]["name"], "w20");
}

/// A receiver that speaks TLS, ended when it is dropped.
struct Tls(Child);

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn over_tls_to_whom_the_machine_trusts() {
    let dir = Directory::new();
    let file = |name: &str| dir.path.join(name).to_str().unwrap().to_owned();
    let (key, certificate) = (file("key.pem"), file("certificate.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args([
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            // A certificate of an authority is not taken for a server's.
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ])
        .stderr(Stdio::null())
        .status();
    assert!(made.unwrap().success());
    let script = "
import http.server, ssl, sys
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['content-length']))
        self.send_response(200)
        self.send_header('content-length', '0')
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.HTTPServer(('127.0.0.1', 0), Receiver)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[1])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()";
    let mut python = Command::new("python3");
    let mut receiver = Tls(python.args(["-c", script, &key, &certificate]).stdout(Stdio::piped()).spawn().unwrap());
    let mut port = String::new();
    BufReader::new(receiver.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let url = format!("https://localhost:{}/", port.trim());
    let (mut server, home) = bare();
    ok(&server, "create-webhook", json!({"name": "tls", "url": url, "kinds": ["task-done"]}));
    let error = eventually("it is not trusted", SOON, || {
        let shown = ok(&server, "describe-webhook", json!({"webhook": "tls"}));
        shown["last_delivery"]["error"].as_str().map(str::to_owned)
    });
    assert!(error.contains("certificate"), "{error}");
    assert!(server.terminate());
    drop(server);
    let server = Server::start(&home.path, &[("SSL_CERT_FILE", &certificate)]);
    eventually("it is delivered", SOON, || {
        let shown = ok(&server, "describe-webhook", json!({"webhook": "tls"}));
        (shown["deliveries"][0]["state"] == "delivered").then_some(())
    });
    // So does the command line; that is no Vmyard, but trusted.
    let vmyard = |env: &[(&str, &str)]| {
        let mut command = server.command(env!("CARGO_BIN_EXE_vmyard"));
        let output = command.args(["--url", &url, "--token", "t", "vm", "list"]).envs(env.iter().copied()).output();
        String::from_utf8(output.unwrap().stderr).unwrap()
    };
    assert!(vmyard(&[]).contains("certificate"), "{}", vmyard(&[]));
    let trusted = vmyard(&[("SSL_CERT_FILE", &certificate)]);
    assert!(trusted.contains("200 OK with something that is not of Vmyard"), "{trusted}");
}

#[test]
fn on_the_command_line() {
    let lab = Lab::shared();
    let name = lab.name("hook");
    let cli = |args: &[&str]| lab.server.cli(args);
    let (code, out) = cli(&["webhook", "create", &name, "http://127.0.0.1:1/x", "--kind", "vm-state,node-state"]);
    assert!(code == 0 && out.starts_with("whsec_"), "{out}");
    let (code, out) = cli(&["webhook", "list"]);
    assert!(code == 0 && out.contains(&name) && out.contains("vm-state, node-state"), "{out}");
    let (code, out) = cli(&["webhook", "show", &name]);
    assert!(code == 0 && out.contains("http://127.0.0.1:1/x") && !out.contains("whsec_"), "{out}");
    let (code, out) = cli(&["webhook", "delete", &name]);
    assert!(code == 0 && out.contains("is deleted"), "{out}");
    let (code, out) = cli(&["webhook", "create", &name, "junk"]);
    assert!(code == 1 && out.contains("url"), "{out}");
}
