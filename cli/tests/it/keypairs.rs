//! SSH keypairs, against the real ssh-keygen and by real logins.

use crate::{
    access::{SERVER_FILES, bare, called_with, code, is_nowhere, ok, token},
    lab::{Lab, SOON, Server, eventually},
};
use serde_json::{Value, json};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

const SK_ED25519: &str = "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAICFo/k5LU8863u66YC9eUO2170QduohPURkQnbLa/dczAAAABHNzaDo= user@example.com";
const SK_ECDSA: &str = "sk-ecdsa-sha2-nistp256@openssh.com AAAAInNrLWVjZHNhLXNoYTItbmlzdHAyNTZAb3BlbnNzaC5jb20AAAAIbmlzdHAyNTYAAABBBIELQJ2DgvaX1yQlKFokfWM2suuaCFI2qp0eJodHyg6O4ifxc3XpRKd1OS8dNYQtE/YjdXSrA+AOnMF5ns2Nkx4AAAAEc3NoOg== user@example.com";
const DSA: &str = "ssh-dss AAAAB3NzaC1kc3MAAACBANw9iSUO2UYhFMssjUgW46URqv8bBrDgHeF8HLBOWBvKuXF2Rx2J/XyhgX48SOLMuv0hcPaejlyLarabnF9F2V4dkpPpZSJ+7luHmxEjNxwhsdtg8UteXAWkeCzrQ6MvRJZHcDBjYh56KGvslbFnJsGLXlI4PQCyl6awNImwYGilAAAAFQCJGBU3hZf+QtP9Jh/nbfNlhFu7hwAAAIBHObOQioQVRm3HsVb7mOy3FVKhcLoLO3qoG9gTkd4KeuehtFAC3+rckiX7xSCnE/5BBKdL7VP9WRXac2Nlr9Pwl3e7zPut96wrCHt/TZX6vkfXKkbpUIj5zSqfvyNrWKaYJkfzwAQwrXNS1Hol676Ud/DDEn2oatdEhkS3beWHXAAAAIBgQqaz/YYTRMshzMzYcZ4lqgvgmA55y6v0h39e8HH2A5dwNS6sPUw2jyna+le0dceNRJifFld1J+WYM0vmquSr11DDavgEidOSaXwfMvPPPJqLmbzdtT16N+Gij9U9STQTHPQcQ3xnNNHgQAStzZJbhLOVbDDDo5BO7LMUALDfSA== user@example.com";

/// What the real program prints; `None` when it fails.
fn ssh_keygen(args: &[&str]) -> Option<String> {
    let ran = Command::new("ssh-keygen").env("LC_ALL", "C.UTF-8").args(args).output().unwrap();
    ran.status.success().then(|| String::from_utf8(ran.stdout).unwrap().trim().to_owned())
}

/// Makes a key with the real program. Returns the file of its private half.
fn foreign_key(dir: &Path, name: &str, args: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let common = ["-q", "-N", "", "-C", "a: comment #1", "-f", path.to_str().unwrap()];
    assert!(ssh_keygen(&[&common[..], args].concat()).is_some(), "{args:?}");
    path
}

/// Sees that the real program reads the keypair as the server does: `256 SHA256:… comment (ED25519)`.
#[track_caller]
fn agrees(dir: &Path, keypair: &Value) {
    let path = dir.join("agrees.pub");
    fs::write(&path, keypair["public_key"].as_str().unwrap()).unwrap();
    let printed = ssh_keygen(&["-l", "-f", path.to_str().unwrap()]).unwrap();
    let algorithm = keypair["algorithm"].as_str().unwrap().to_uppercase().replace('_', "-");
    let text = |field: &str| keypair[field].as_str().unwrap().to_owned();
    let comment = match text("comment") {
        none if none.is_empty() => "no comment".to_owned(),
        comment => comment,
    };
    assert_eq!(printed, format!("{} {} {comment} ({algorithm})", keypair["bits"], text("fingerprint")));
}

/// The private key in a file as ssh wants it.
fn keep(dir: &Path, name: &str, keypair: &Value) -> String {
    let path = dir.join(name);
    fs::write(&path, keypair["private_key"].as_str().unwrap()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Directories of keys that are being made.
fn being_made() -> Vec<PathBuf> {
    let entries = fs::read_dir("/dev/shm").unwrap().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.to_string_lossy().contains("/vmyard-")).collect()
}

#[test]
fn private_keys_are_told_once_and_kept_nowhere() {
    let (mut server, dir) = bare();
    let viewer = token(&server, "vera", "viewer");
    let mut secrets = Vec::new();
    for (request, algorithm, bits, comment) in [
        (json!({"name": "plain"}), "ed25519", 256, "plain"),
        (json!({"name": "said", "algorithm": "ed25519", "comment": "-C ü: 'me' $x"}), "ed25519", 256, "-C ü: 'me' $x"),
        (json!({"name": "bare", "comment": ""}), "ed25519", 256, ""),
        (json!({"name": "old", "algorithm": "rsa"}), "rsa", 3072, "old"),
        (json!({"name": "large", "algorithm": "rsa", "bits": 4096, "comment": "-f /x"}), "rsa", 4096, "-f /x"),
    ] {
        let made = ok(&server, "create-keypair", request);
        assert_eq!((&made["algorithm"], &made["bits"]), (&json!(algorithm), &json!(bits)), "{}", made["name"]);
        assert_eq!((&made["comment"], &made["secret_expired"]), (&json!(comment), &json!(false)));
        let file = keep(&dir.path, "private", &made);
        assert_eq!(ssh_keygen(&["-y", "-P", "", "-f", &file]).as_deref(), made["public_key"].as_str());
        fs::remove_file(file).unwrap();
        agrees(&dir.path, &made);
        let described = ok(&server, "describe-keypair", json!({"keypair": made["id"]}));
        assert!(described.get("private_key").is_none(), "{described}");
        for field in ["id", "name", "public_key", "fingerprint", "created_at"] {
            assert_eq!(described[field], made[field]);
        }
        // A line from the middle: the first ones are much the same in all keys.
        let lines: Vec<_> = made["private_key"].as_str().unwrap().lines().collect();
        secrets.push(lines[lines.len() / 2].to_owned());
    }
    let left = being_made();
    eventually("other servers' keys are made too", SOON, || left.iter().all(|path| !path.exists()).then_some(()));

    for (wrong, field) in [
        (json!({"name": "a b"}), "name"),
        (json!({"name": "a", "algorithm": "dsa"}), "algorithm"),
        (json!({"name": "a", "algorithm": "rsa", "bits": 1024}), "bits"),
        (json!({"name": "a", "bits": 3072}), "bits"),
        (json!({"name": "a", "comment": "two\nlines"}), "comment"),
        (json!({"name": "a", "comment": "x".repeat(256)}), "comment"),
    ] {
        let answer = server.call("create-keypair", wrong.clone());
        assert_eq!((code(&answer), &answer.body["errors"][0]["field"]), ((400, "invalid"), &json!(field)), "{wrong}");
    }
    assert_eq!(code(&server.call("create-keypair", json!({"name": "PLAIN"}))), (409, "already_exists"));
    let listed = ok(&server, "list-keypairs", json!({"limit": 2}));
    assert_eq!((&listed["keypairs"][0]["name"], &listed["total"]), (&json!("bare"), &json!(5)));
    let rest = ok(&server, "list-keypairs", json!({"cursor": listed["next_cursor"]}));
    assert_eq!(rest["keypairs"].as_array().unwrap().len(), 3, "{rest}");
    assert_eq!(called_with(&server, &viewer, "list-keypairs", json!({})).body["total"], 5);
    assert_eq!(called_with(&server, &viewer, "create-keypair", json!({"name": "a"})).status, 403);

    // The caller is told again for a while, who else asks isn't; after a restart nobody is.
    let request = json!({"name": "again", "client_token": "once"});
    let first = ok(&server, "create-keypair", request.clone());
    assert_eq!(ok(&server, "create-keypair", request.clone()), first);
    let task = ok(&server, "list-tasks", json!({"method": "create-keypair", "limit": 1}))["tasks"][0]["id"].clone();
    assert_eq!(ok(&server, "describe-task", json!({"task": task}))["result"], first);
    let seen = called_with(&server, &viewer, "describe-task", json!({"task": task})).body["result"].clone();
    assert_eq!((&seen["private_key"], &seen["secret_expired"]), (&json!(null), &json!(true)), "{seen}");
    server.kill_and_restart(&[]);
    let replayed = ok(&server, "create-keypair", request);
    assert_eq!((&replayed["private_key"], &replayed["secret_expired"]), (&json!(null), &json!(true)), "{replayed}");
    assert_eq!(replayed["fingerprint"], first["fingerprint"]);
    secrets.push(first["private_key"].as_str().unwrap().lines().nth(3).unwrap().to_owned());

    // Deleted, its name is free.
    assert_eq!(ok(&server, "delete-keypair", json!({"keypair": "AGAIN"}))["name"], "again");
    for method in ["describe-keypair", "delete-keypair"] {
        assert_eq!(code(&server.call(method, json!({"keypair": "again"}))), (404, "not_found"));
    }
    ok(&server, "create-keypair", json!({"name": "again"}));

    // Killed before anybody was told: the keypair is taken back, its name is free.
    for (step, algorithm) in [("make-key", "rsa"), ("record-keypair", "ed25519")] {
        for point in ["before", "after"] {
            server.kill_and_restart(&[("VMYARD_CRASH_AT", &format!("{step}:{point}"))]);
            let request = json!({"name": "phoenix", "algorithm": algorithm});
            assert_eq!(server.call("create-keypair", request.clone()).status, 0);
            server.kill_and_restart(&[]);
            ok(&server, "create-keypair", request);
            ok(&server, "delete-keypair", json!({"keypair": "phoenix"}));
        }
    }
    for secret in secrets {
        is_nowhere(&dir.path, &secret, &SERVER_FILES);
    }
}

/// What import-keypair says against this key.
#[track_caller]
fn refused(server: &Server, public_key: &str) -> String {
    let answer = server.call("import-keypair", json!({"name": "wrong", "public_key": public_key}));
    let error = answer.body["errors"][0].clone();
    assert_eq!((code(&answer), &error["field"]), ((400, "invalid"), &json!("public_key")), "{answer:?}");
    error["message"].as_str().unwrap().to_owned()
}

#[test]
fn keys_are_imported_and_weak_ones_refused() {
    let (mut server, dir) = bare();
    let kinds: [(&str, &[&str], u32); 6] = [
        ("ed25519", &["-t", "ed25519"], 256),
        ("rsa-2048", &["-t", "rsa", "-b", "2048"], 2048),
        // Its modulus doesn't fill its bytes.
        ("rsa-2052", &["-t", "rsa", "-b", "2052"], 2052),
        ("p256", &["-t", "ecdsa", "-b", "256"], 256),
        ("p384", &["-t", "ecdsa", "-b", "384"], 384),
        ("p521", &["-t", "ecdsa", "-b", "521"], 521),
    ];
    let mut public_keys = vec![("sk-ed25519", SK_ED25519.to_owned(), 256), ("sk-p256", SK_ECDSA.to_owned(), 256)];
    for (name, args, bits) in kinds {
        let private = foreign_key(&dir.path, name, args);
        public_keys.push((name, fs::read_to_string(private.with_extension("pub")).unwrap(), bits));
    }
    for (name, public_key, bits) in &public_keys {
        let imported = ok(&server, "import-keypair", json!({"name": name, "public_key": public_key}));
        assert_eq!((&imported["bits"], &imported["public_key"]), (&json!(bits), &json!(public_key.trim())));
        agrees(&dir.path, &imported);
    }
    // The same key under another name is one more; another key under the same name isn't.
    let (_, ed25519, _) = &public_keys[2];
    ok(&server, "import-keypair", json!({"name": "twin", "public_key": ed25519}));
    let again = server.call("import-keypair", json!({"name": "P256", "public_key": ed25519}));
    assert_eq!(code(&again), (409, "already_exists"));

    let weak = foreign_key(&dir.path, "weak", &["-t", "rsa", "-b", "1024"]);
    let weak = fs::read_to_string(weak.with_extension("pub")).unwrap();
    assert!(refused(&server, &weak).contains("RSA key of 1024 bits"));
    assert!(refused(&server, DSA).contains("DSA"));
    let file = |name: &str| dir.path.join(name).display().to_string();
    ssh_keygen(&["-q", "-s", &file("p256"), "-I", "ann", "-n", "ann", &file("ed25519.pub")]).unwrap();
    let certificate = fs::read_to_string(file("ed25519-cert.pub")).unwrap();
    assert!(refused(&server, &certificate).contains("certificate"));
    // Pasted by mistake: no word of it comes back, or stays anywhere.
    for name in ["ed25519", "rsa-2048"] {
        let private = fs::read_to_string(file(name)).unwrap();
        for private in [private.clone(), private.replace('\n', " "), format!("ssh-rsa {private}")] {
            let message = refused(&server, &private);
            assert!(message.contains("private key"), "{message}");
            let secret = private.split_whitespace().nth(8).unwrap();
            assert!(!message.contains(&secret[..20]), "{message}");
        }
        let secret = private.lines().nth(3).unwrap().to_owned();
        fs::remove_file(file(name)).unwrap();
        is_nowhere(&dir.path, &secret, &SERVER_FILES);
    }
    let halved = &ed25519[..50];
    let swapped = ed25519.replace("ssh-ed25519", "ssh-rsa");
    let long = format!("{} {}", ed25519.trim(), "x".repeat(16_384));
    for wrong in [halved, &swapped, &long, "", "\n", "ssh-ed25519", &format!("{ed25519}{ed25519}"), "---- BEGIN SSH2"] {
        let message = refused(&server, wrong);
        assert!(!message.contains("AAAA3"), "{message}");
    }
    for point in ["before", "after"] {
        server.kill_and_restart(&[("VMYARD_CRASH_AT", &format!("record-keypair:{point}"))]);
        let request = json!({"name": "phoenix", "public_key": ed25519});
        assert_eq!(server.call("import-keypair", request.clone()).status, 0);
        server.kill_and_restart(&[]);
        ok(&server, "import-keypair", request);
        ok(&server, "delete-keypair", json!({"keypair": "phoenix"}));
    }
}

#[test]
fn keypairs_on_the_command_line() {
    let (server, dir) = bare();
    let file = |name: &str| dir.path.join(name).display().to_string();
    let (code, text) = server.cli(&["keypair", "create", "web", "--comment", "of the web", "--out", &file("web")]);
    assert!(code == 0 && text.starts_with("keypair web (SHA256:"), "{text}");
    assert_eq!(fs::metadata(file("web")).unwrap().permissions().mode() & 0o777, 0o600);
    let public = ssh_keygen(&["-y", "-P", "", "-f", &file("web")]).unwrap();
    let shown = server.cli(&["keypair", "show", "web"]).1;
    assert!(shown.contains(&public) && shown.contains("of the web"), "{shown}");
    // Nothing is overwritten, and then nothing is made; what isn't made leaves no file.
    let before = fs::read(file("web")).unwrap();
    let (code, _, error) = server.cli_apart(&["keypair", "create", "other", "--out", &file("web")]);
    assert!(code == 2 && error.contains("exists"), "{code} {error}");
    assert_eq!(fs::read(file("web")).unwrap(), before);
    assert_eq!(server.cli_apart(&["keypair", "create", "WEB", "--out", &file("none")]).0, 1);
    assert!(!Path::new(&file("none")).exists());
    // Without a file it is printed, alone.
    let (code, text) = server.cli(&["keypair", "create", "printed", "--algorithm", "rsa", "--bits", "4096"]);
    assert!(code == 0 && text.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "{text}");
    assert!(text.ends_with("-----END OPENSSH PRIVATE KEY-----\n"), "{text}");

    fs::write(file("mine.pub"), &public).unwrap();
    let (code, text) = server.cli(&["keypair", "import", "mine", &file("mine.pub")]);
    assert!(code == 0 && text.starts_with("keypair mine (SHA256:") && text.ends_with("is imported\n"), "{text}");
    let (code, _, error) = server.cli_apart(&["keypair", "import", "wrong", &file("web")]);
    assert!(code == 1 && error.contains("is a private key"), "{error}");
    let list = server.cli(&["keypair", "list", "-o", "wide"]).1;
    assert_eq!(list.lines().count(), 4, "{list}");
    assert_eq!(server.cli(&["keypair", "delete", "mine"]), (0, "keypair mine is deleted\n".to_owned()));
}

#[test]
fn a_guest_lets_in_who_has_a_keypair() {
    let lab = Lab::own();
    let made: Vec<String> = ["ed25519", "rsa"]
        .iter()
        .map(|algorithm| {
            let made = lab.ok("create-keypair", json!({"name": algorithm, "algorithm": algorithm}));
            keep(&lab.dir.path, algorithm, &made)
        })
        .collect();
    let rsa = lab.ok("describe-keypair", json!({"keypair": "rsa"}));
    let mine = foreign_key(&lab.dir.path, "mine", &["-t", "ecdsa"]);
    let mine = fs::read_to_string(mine.with_extension("pub")).unwrap();
    let given = json!({"user": "ann", "keypairs": ["Ed25519", rsa["id"]], "ssh_keys": [mine, rsa["public_key"]]});
    let problem = lab.err(
        "create-vm",
        crate::lab::request("nobody", json!({"cloud_init": {"keypairs": ["ed25519", "lost"]}})),
        404,
        "not_found",
    );
    assert!(problem["detail"].as_str().unwrap().contains("keypair \"lost\""), "{problem}");
    let vm = lab.create_with("let-in", json!({"cloud_init": given})).start().ready();
    // A deleted keypair's key stays where it is.
    lab.ok("delete-keypair", json!({"keypair": "rsa"}));
    for key in [&made[0], &made[1], &lab.dir.path.join("mine").display().to_string()] {
        let only = ["-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"];
        let (ok, text) = vm.ssh("ann", &[], &only, "id -un");
        assert!(ok && text == "ann", "{key}: {text}");
    }
    assert_eq!(vm.run("grep -c . /home/ann/.ssh/authorized_keys"), "3", "none twice");
    let stranger = foreign_key(&lab.dir.path, "stranger", &["-t", "ed25519"]).display().to_string();
    let only = ["-i", &stranger, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes"];
    assert!(!vm.ssh("ann", &[], &only, "id -un").0);
}
