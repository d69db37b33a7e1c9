//! Invariants of the code that can be checked, are checked here.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All Rust files of the workspace, by path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut folders: Vec<PathBuf> =
        ["libvirt", "hypervisor", "api", "server", "cli"].iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                files.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(files.len() > 50);
    files
}

/// The lines of a file that are code, without those of its tests.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
    text[..tests].lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn no_file_is_long() {
    for (name, text) in sources() {
        let lines = text.lines().count();
        assert!(lines <= 600, "{name} has {lines} lines: split it by subject");
    }
    let lines = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap().lines().count();
    assert!(lines < 300, "ARCHITECTURE.md has {lines} lines");
}

#[test]
fn crates_depend_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = [
        ("libvirt", &[][..]),
        ("hypervisor", &["libvirt"]),
        ("api", &[]),
        ("server", &["api", "hypervisor"]),
        ("cli", &["api", "server"]),
    ]
    .into();
    for (name, allowed) in &allowed {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        for line in dependencies.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap();
            let ours = ["libvirt", "hypervisor", "api", "server", "cli"].contains(&dependency);
            assert!(!ours || allowed.contains(&dependency), "{name} must not depend on {dependency}");
        }
        let api_is_plain = ["tokio", "axum", "sqlx", "virt-sys"].iter().all(|heavy| !dependencies.contains(heavy));
        assert!(*name != "api" || api_is_plain, "api must stay usable by any client");
    }
}

#[test]
fn unsafe_only_in_libvirt() {
    for (name, text) in sources().iter().filter(|(name, _)| !name.starts_with("libvirt/") && !name.ends_with("tidy.rs"))
    {
        assert!(!code(text).any(|line| line.contains("unsafe ")), "{name} has unsafe code");
        assert!(!text.contains("allow(unsafe_code)"), "{name}");
    }
}

#[test]
fn sql_only_in_store() {
    for (name, text) in
        sources().iter().filter(|(name, _)| name.starts_with("server/src/") && !name.contains("/store/"))
    {
        assert!(!code(text).any(|line| line.contains("sqlx")), "{name} uses the database past the store");
    }
}

#[test]
fn layers_point_down() {
    // In the server: rpc -> methods -> ops -> {task, store, hypervisor}.
    for (name, text) in sources() {
        let forbidden: &[&str] = match name.strip_prefix("server/src/") {
            Some(name) if name.starts_with("store/") => {
                &["crate::ops", "crate::rpc", "crate::task", "crate::methods", "crate::index"]
            }
            Some(name) if name.starts_with("task/") => &["crate::rpc", "crate::methods"],
            Some(name) if name.starts_with("ops/") => &["crate::rpc", "crate::methods", "reconcile", "axum"],
            Some(name) if name.starts_with("index/") => &["crate::rpc", "crate::methods", "crate::ops", "crate::task"],
            Some("admission.rs" | "seed.rs" | "seeds.rs" | "observe.rs") => {
                &["crate::rpc", "crate::methods", "crate::ops"]
            }
            _ => &[],
        };
        for module in forbidden {
            assert!(!code(&text).any(|line| line.contains(module)), "{name} must not use {module}");
        }
    }
    for (name, text) in sources().iter().filter(|(name, _)| name.starts_with("server/src/")) {
        assert!(!code(text).any(|line| line.contains("libvirt::")), "{name} uses libvirt past hypervisor");
        let http_here =
            name.starts_with("server/src/rpc/") || name.ends_with("serve.rs") || name.ends_with("problem.rs");
        assert!(http_here || !code(text).any(|line| line.contains("StatusCode")), "{name} knows HTTP");
    }
}

#[test]
fn no_shell() {
    for (name, text) in sources().iter().filter(|(name, _)| name.contains("/src/")) {
        for line in code(text).filter(|line| line.contains("Command::new")) {
            assert!(!line.contains("\"sh\"") && !line.contains("bash"), "{name} starts a shell: {line}");
        }
    }
}

#[test]
fn no_unwrap_outside_tests() {
    for (name, text) in sources().iter().filter(|(name, _)| name.contains("/src/")) {
        assert!(!code(text).any(|line| line.contains(".unwrap()")), "{name} unwraps");
    }
}

#[test]
fn every_method_has_a_test_and_a_text() {
    let tests: String =
        sources().iter().filter(|(name, _)| name.starts_with("cli/tests/")).map(|(_, text)| text.as_str()).collect();
    let document = server::openapi(&server::table());
    for method in server::table().methods() {
        let called = format!("\"{}\"", method.name);
        assert!(tests.contains(&called), "no test calls {}", method.name);
        let operation = &document["paths"][format!("/api/{}", method.name)]["post"];
        assert!(operation["description"].as_str().is_some_and(|text| text.len() > 10), "{} has no text", method.name);
    }
}

#[test]
fn the_committed_openapi_document_is_the_servers() {
    let committed = fs::read_to_string(root().join("openapi.json")).expect("openapi.json is missing: make openapi");
    let current = format!("{:#}\n", server::openapi(&server::table()));
    assert!(committed == current, "openapi.json is stale: make openapi");
}

#[test]
fn nothing_tells_of_the_machine_it_was_made_on() {
    for name in
        ["README.md", "README.zh.md", "ARCHITECTURE.md", "CHANGELOG.md", "Makefile", "scripts/prepare", "scripts/run"]
    {
        let text = fs::read_to_string(root().join(name)).unwrap();
        let here = root().display().to_string();
        assert!(!text.contains(&here), "{name} names a path of somebody's machine");
    }
}
