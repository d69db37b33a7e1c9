//! list-vms over 10,000 VMs: filters, orders, pages.

use crate::lab::fleet::{AWAY, Fleet, FleetVm};
use serde_json::{Value, json};
use std::{cmp::Ordering, collections::HashSet};

const VMS: usize = 10_000;

/// All pages of a list, with the total that each tells.
fn pages(
    fleet: &Fleet,
    request: &Value,
    limit: usize,
    mut between: impl FnMut(usize, &Value),
) -> (Vec<Value>, Vec<u64>) {
    let (mut rows, mut totals, mut cursor) = (Vec::new(), Vec::new(), Value::Null);
    loop {
        let mut body = request.clone();
        body["limit"] = json!(limit);
        body["cursor"] = cursor;
        let page = fleet.list(body);
        let vms = page["vms"].as_array().unwrap();
        assert!(vms.len() == limit || page["next_cursor"].is_null(), "only the last page is short");
        rows.extend(vms.iter().cloned());
        totals.push(page["total"].as_u64().unwrap());
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            return (rows, totals);
        }
        between(totals.len(), &page);
    }
}

fn ids(rows: &[Value]) -> Vec<&str> {
    rows.iter().map(|vm| vm["id"].as_str().unwrap()).collect()
}

fn expected(
    fleet: &Fleet,
    fits: impl Fn(&FleetVm) -> bool,
    compare: impl Fn(&FleetVm, &FleetVm) -> Ordering,
) -> Vec<&FleetVm> {
    let name = |vm: &FleetVm| vm.name.to_lowercase();
    let mut vms: Vec<&FleetVm> = fleet.vms.iter().filter(|vm| fits(vm)).collect();
    vms.sort_by(|a, b| compare(a, b).then_with(|| name(a).cmp(&name(b))).then_with(|| a.id.cmp(&b.id)));
    vms
}

#[track_caller]
fn assert_same(rows: &[Value], wanted: &[&FleetVm], what: &str) {
    let wanted: Vec<String> = wanted.iter().map(|vm| vm.id.to_string()).collect();
    let first = ids(rows).iter().zip(&wanted).position(|(is, wanted)| is != wanted);
    assert!(rows.len() == wanted.len() && first.is_none(), "{what}: {} of {} at {first:?}", rows.len(), wanted.len());
}

#[test]
fn ten_thousand_vms_in_every_order() {
    let fleet = Fleet::start(VMS);
    let tag = |vm: &FleetVm, key: &str| vm.tags.get(key).cloned().unwrap_or_default();
    type Compare<'a> = Box<dyn Fn(&FleetVm, &FleetVm) -> Ordering + 'a>;
    let orders: [(&str, Compare); 6] = [
        ("name", Box::new(|_, _| Ordering::Equal)),
        ("state", Box::new(|a, b| a.state.cmp(b.state))),
        ("node", Box::new(|a, b| a.node.cmp(b.node))),
        ("created_at", Box::new(|a, b| a.created_at.cmp(&b.created_at))),
        ("tag:env", Box::new(|a, b| tag(a, "env").cmp(&tag(b, "env")))),
        ("tag:nobody-has-it", Box::new(|_, _| Ordering::Equal)),
    ];
    for (sort, compare) in orders {
        let mut wanted = expected(&fleet, |_| true, compare);
        for sort in [sort.to_owned(), format!("-{sort}")] {
            let (rows, totals) = pages(&fleet, &json!({"sort": sort}), 1000, |_, _| {});
            assert_same(&rows, &wanted, &sort);
            assert!(totals.iter().all(|total| *total == (VMS + AWAY) as u64), "{sort}: {totals:?}");
            wanted.reverse();
        }
    }
    // The order is by name, and a page has 100 rows, when nothing is said.
    let wanted = expected(&fleet, |_| true, |_, _| Ordering::Equal);
    assert_same(&pages(&fleet, &json!({}), 100, |_, _| {}).0, &wanted, "by hundreds");
    assert_same(fleet.list(json!({}))["vms"].as_array().unwrap(), &wanted[..100], "the first page");

    filters_go_with_pages(&fleet);
    a_row_is_what_the_vm_is(&fleet);
    what_makes_no_sense_is_refused(&fleet);
    pages_are_stable_while_vms_come_and_go(&fleet);
}

fn filters_go_with_pages(fleet: &Fleet) {
    let has = |vm: &FleetVm, key: &str, value: &str| vm.tags.get(key).is_some_and(|is| is == value);
    type Fits<'a> = Box<dyn Fn(&FleetVm) -> bool + 'a>;
    let filters: [(Value, Fits); 8] = [
        (json!({"state": "paused"}), Box::new(|vm| vm.state == "paused")),
        (json!({"name": "wIn-0"}), Box::new(|vm| vm.name.to_lowercase().contains("win-0"))),
        (json!({"node": "FLEET"}), Box::new(|vm| vm.node == "fleet")),
        (json!({"node": "away", "state": "unknown"}), Box::new(|vm| vm.node == "away")),
        (json!({"managed": false}), Box::new(|vm| vm.created_at.is_none())),
        (json!({"tags": {"env": "prod"}}), Box::new(|vm| has(vm, "env", "prod"))),
        (
            json!({"tags": {"env": "Prod", "rack": "12"}, "state": "running", "name": "web", "node": "fleet"}),
            Box::new(|vm| has(vm, "env", "Prod") && has(vm, "rack", "12") && vm.state == "running"),
        ),
        (json!({"tags": {"env": "none"}}), Box::new(|_| false)),
    ];
    for (filter, fits) in filters {
        let mut wanted = expected(fleet, &fits, |a, b| a.created_at.cmp(&b.created_at));
        // Descending in everything: names and ids too.
        wanted.reverse();
        assert!(wanted.len() < VMS + AWAY && (filter["tags"]["env"] == "none") == wanted.is_empty(), "{filter}");
        let mut request = filter.clone();
        request["sort"] = json!("-created_at");
        let (rows, totals) = pages(fleet, &request, (wanted.len() / 3).clamp(1, 1000), |_, _| {});
        assert_same(&rows, &wanted, &filter.to_string());
        assert!(totals.iter().all(|total| *total == wanted.len() as u64), "{filter}: {totals:?}");
    }
}

fn a_row_is_what_the_vm_is(fleet: &Fleet) {
    let (rows, _) = pages(fleet, &json!({}), 1000, |_, _| {});
    for (row, vm) in rows.iter().zip(expected(fleet, |_| true, |_, _| Ordering::Equal)) {
        assert_eq!((&row["name"], &row["state"]), (&json!(vm.name), &json!(vm.state)), "{row}");
        assert_eq!((&row["tags"], &row["node"]), (&json!(vm.tags), &json!(vm.node)), "{row}");
        assert_eq!(row["managed"], vm.created_at.is_some(), "{row}");
        // What a node that is away would tell isn't known.
        let away = vm.node == "away";
        assert_eq!((&row["stale"], row["observed_at"].is_null()), (&json!(away), away), "{row}");
    }
}

fn what_makes_no_sense_is_refused(fleet: &Fleet) {
    let cursor = fleet.list(json!({"sort": "state"}))["next_cursor"].clone();
    for (request, field) in [
        (json!({"sort": "colour"}), "sort"),
        (json!({"sort": "tag:"}), "sort"),
        (json!({"sort": ""}), "sort"),
        (json!({"limit": 0}), "limit"),
        (json!({"limit": 1001}), "limit"),
        (json!({"limit": "all"}), "limit"),
        (json!({"cursor": "%%%"}), "cursor"),
        (json!({"cursor": "bm9uc2Vuc2U"}), "cursor"),
        (json!({"cursor": ""}), "cursor"),
        (json!({"cursor": cursor, "sort": "name"}), "cursor"),
        (json!({"cursor": cursor, "sort": "-state"}), "cursor"),
        (json!({"state": "burning"}), "state"),
        (json!({"name": ""}), "name"),
        (json!({"tags": {"env": 1}}), "tags.env"),
    ] {
        let answer = fleet.server.call("list-vms", request.clone());
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!("invalid")), "{request}: {answer:?}");
        assert_eq!(answer.body["errors"][0]["field"], field, "{request}: {answer:?}");
    }
    let answer = fleet.server.call("list-vms", json!({"node": "nowhere"}));
    assert_eq!((answer.status, &answer.body["code"]), (404, &json!("not_found")));
}

/// VMs are started and stopped between the pages, before and behind the cursor, so that rows come and go.
fn pages_are_stable_while_vms_come_and_go(fleet: &Fleet) {
    for sort in ["name", "-created_at", "tag:env", "-node"] {
        let request = json!({"state": "shutoff", "sort": sort});
        let before = pages(fleet, &request, 1000, |_, _| {}).0;
        let mut moved: HashSet<String> = HashSet::new();
        let change = |method: &str, body: Value| {
            let answer = fleet.server.call(method, body);
            assert_eq!(answer.status, 200, "{method}: {answer:?}");
        };
        let running = ids(&pages(fleet, &json!({"state": "running"}), 1000, |_, _| {}).0)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        let during = pages(fleet, &request, 500, |page, answer| {
            // The cursor's own row and its neighbours, one page on, and ones that appear here and there.
            let last = answer["vms"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap();
            let at = before.iter().position(|vm| vm["id"] == last);
            for offset in [-3, 0, 1, 250] {
                let row = at.and_then(|at| before.get(at.checked_add_signed(offset)?));
                if let Some(id) = row.and_then(|row| row["id"].as_str()).filter(|id| moved.insert((*id).to_owned())) {
                    change("start-vm", json!({"vm": id}));
                }
            }
            for id in running.iter().skip(page * 211).take(3).filter(|id| moved.insert((*id).clone())) {
                change("stop-vm", json!({"vm": id, "force": true}));
            }
        })
        .0;
        assert!(moved.len() > 10, "{sort}");
        let stayed = |rows: &[Value]| -> Vec<String> {
            ids(rows).into_iter().filter(|id| !moved.contains(*id)).map(str::to_owned).collect()
        };
        assert_eq!(stayed(&before), stayed(&during), "{sort}: who stayed is neither skipped nor repeated");
        let seen: HashSet<&str> = ids(&during).into_iter().collect();
        assert_eq!(seen.len(), during.len(), "{sort}: nobody is shown twice");
    }
}
