//! Virtual networks.

use super::{find, page};
use crate::{Context, Result};
use api::{
    Page,
    network::{DescribeNetwork, ListNetworks, Network, Networks},
};
use hypervisor::network::NetworkView;

/// `list-networks`
pub async fn list(context: Context, request: ListNetworks) -> Result<Networks> {
    let (rows, unreachable) = rows(&context, request.node.as_deref()).await?;
    let page = Page { limit: request.limit, cursor: request.cursor };
    let cut = page::cut(rows, &page, |network| format!("{}\n{}", network.name, network.node))?;
    Ok(Networks { networks: cut.rows, next_cursor: cut.next_cursor, total: cut.total, unreachable })
}

/// `describe-network`
pub async fn describe(context: Context, request: DescribeNetwork) -> Result<Network> {
    let (rows, unreachable) = rows(&context, request.node.as_deref()).await?;
    let found = find::only_one("network", &request.network, rows, |network| {
        (network.name.clone(), Some(network.id), network.node.clone())
    });
    find::unless_unreachable(found, &context.app, &unreachable)
}

/// All networks of the nodes, by name and node, and the nodes that don't answer.
async fn rows(context: &Context, node: Option<&str>) -> Result<(Vec<Network>, Vec<String>)> {
    let nodes = context.app.nodes_of(node)?;
    let (answers, unreachable) = find::ask_nodes(nodes, |node| async move { node.networks().await }).await;
    let mut rows: Vec<Network> = answers
        .into_iter()
        .flat_map(|(node, networks)| networks.into_iter().map(move |network| to_wire(node.name(), network)))
        .collect();
    rows.sort_by(|a, b| (&a.name, &a.node).cmp(&(&b.name, &b.node)));
    Ok((rows, unreachable))
}

fn to_wire(node: &str, network: NetworkView) -> Network {
    Network {
        id: network.uuid,
        name: network.name,
        node: node.to_owned(),
        active: network.active,
        bridge: network.bridge,
        forward: network.forward,
        addresses: network.addresses,
        dhcp: network.dhcp,
    }
}
