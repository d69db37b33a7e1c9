//! Finding pools and networks by what a request says.

use crate::{App, Error, Result};
use hypervisor::{Node, network::NetworkView, storage::PoolView};
use std::time::Duration;
use uuid::Uuid;

/// How long a node has to answer for a list that is asked of several.
const LIST: Duration = Duration::from_secs(5);

/// The pool that is meant where none is named.
pub const DEFAULT_POOL: &str = "default";

/// The one node that has this pool, by name or id, active or not.
pub async fn only_node_with_pool(app: &App, reference: &str) -> Result<Node> {
    let mut nodes = app.nodes_of(None)?;
    if nodes.len() == 1 {
        return nodes.pop().ok_or_else(|| Error::not_found("node", ""));
    }
    let ask = |node: Node| async move { node.pool(reference).await };
    let (answers, unreachable) = ask_nodes(nodes, ask).await;
    let found = answers.into_iter().filter_map(|(node, pool)| Some((node, pool?))).collect();
    let name_and_id = |(node, pool): &(Node, PoolView)| (pool.name.clone(), Some(pool.uuid), node.name().to_owned());
    let found = only_one("storage pool", reference, found, name_and_id);
    unless_unreachable(found, app, &unreachable).map(|(node, _)| node)
}

/// The pool on this node that a request means; the node's `default` when it says nothing. It must be active.
pub async fn pool_on(node: &Node, reference: Option<&str>) -> Result<PoolView> {
    let wanted = reference.unwrap_or(DEFAULT_POOL);
    let pool = node.pool(wanted).await?.ok_or_else(|| Error::NotFoundOn {
        kind: "storage pool",
        name: wanted.to_owned(),
        node: node.name().to_owned(),
    })?;
    if pool.name == crate::seeds::POOL {
        return Err(Error::field("pool", format!("must not be {}, which is for seeds and logs only", pool.name)));
    }
    if !pool.active {
        return Err(Error::WrongState {
            detail: format!("storage pool {} on node {} is not active", pool.name, node.name()),
            hint: Some("start the pool first".to_owned()),
        });
    }
    if !pool.holds_files() {
        return Err(Error::Unsupported {
            detail: format!("storage pool {} is of type {}, which can't hold qcow2 images", pool.name, pool.kind),
            hint: Some("use a pool of type dir, fs or netfs".to_owned()),
        });
    }
    Ok(pool)
}

/// The network on this node that a request means. It must be active.
pub async fn network_on(node: &Node, reference: &str) -> Result<NetworkView> {
    let fits =
        |network: &NetworkView| network.name == reference || network.uuid.to_string() == reference.to_lowercase();
    let found = node.networks().await?.into_iter().find(fits);
    let network = found.ok_or_else(|| Error::NotFoundOn {
        kind: "network",
        name: reference.to_owned(),
        node: node.name().to_owned(),
    })?;
    if !network.active {
        return Err(Error::WrongState {
            detail: format!("network {} on node {} is not active", network.name, node.name()),
            hint: Some("start the network first".to_owned()),
        });
    }
    Ok(network)
}

/// Asks several nodes the same, side by side; those that don't answer are named.
pub async fn ask_nodes<T, F, Fut>(nodes: Vec<Node>, ask: F) -> (Vec<(Node, T)>, Vec<String>)
where
    F: Fn(Node) -> Fut,
    Fut: Future<Output = hypervisor::Result<T>>,
{
    ask_nodes_within(LIST, nodes, ask).await
}

/// The same, where an answer may take longer.
pub async fn ask_nodes_within<T, F, Fut>(deadline: Duration, nodes: Vec<Node>, ask: F) -> (Vec<(Node, T)>, Vec<String>)
where
    F: Fn(Node) -> Fut,
    Fut: Future<Output = hypervisor::Result<T>>,
{
    let asked = nodes.into_iter().map(|node| {
        let answer = ask(node.clone());
        async move {
            let answer = tokio::time::timeout(deadline, answer).await;
            (node, answer)
        }
    });
    let (mut answers, mut unreachable) = (Vec::new(), Vec::new());
    for (node, answer) in futures::future::join_all(asked).await {
        match answer {
            Ok(Ok(answer)) => answers.push((node, answer)),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a node is left out of a list");
                unreachable.push(node.name().to_owned());
            }
            Err(_) => unreachable.push(node.name().to_owned()),
        }
    }
    (answers, unreachable)
}

/// The one of these rows that a reference means, by name or id.
pub fn only_one<T>(
    kind: &'static str,
    reference: &str,
    rows: Vec<T>,
    name_and_id: impl Fn(&T) -> (String, Option<Uuid>, String),
) -> Result<T> {
    let id = Uuid::try_parse(reference).ok();
    let fits = |row: &T| {
        let (name, row_id, _) = name_and_id(row);
        (id.is_some() && row_id == id) || name.to_lowercase() == reference.to_lowercase()
    };
    let mut found: Vec<T> = rows.into_iter().filter(fits).collect();
    match found.len() {
        0 => Err(Error::not_found(kind, reference)),
        1 => Ok(found.remove(0)),
        _ => Err(Error::Ambiguous {
            kind,
            name: reference.to_owned(),
            ids: found
                .iter()
                .map(|row| {
                    let (name, id, node) = name_and_id(row);
                    format!("{} on {node}", id.map(|id| id.to_string()).unwrap_or(name))
                })
                .collect(),
        }),
    }
}

/// That one of the nodes didn't answer, where a look-up found nothing and the object may be there.
pub fn unless_unreachable<T>(found: Result<T>, app: &App, unreachable: &[String]) -> Result<T> {
    match (found, unreachable.first()) {
        (Err(Error::NotFound { .. }), Some(name)) => {
            let node = app.node(name)?;
            let reason = match node.status().0 {
                hypervisor::Status::Down(reason) => reason,
                _ => "it does not answer".to_owned(),
            };
            Err(node.unavailable("look it up", &reason).into())
        }
        (found, _) => found,
    }
}
