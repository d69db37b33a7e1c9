//! Copying a volume: a download from here is an upload there, through this process, so that it works between any two nodes
//! that the server reaches, and within one.

use super::{
    VolumeView,
    copy::{COPY, arrived, failed},
    image::Image,
    pieces::{CHUNK, Download, Pieces, upload},
    volume::{create_for_copy, view},
};
use crate::{ErrorKind, Node, Result, error::if_there};
use libvirt::Piece;
use std::sync::mpsc::{SyncSender, sync_channel};
use uuid::Uuid;

/// What is said when the header or the length that has arrived is another.
const DIFFERS: &str = "what has arrived is not what was sent";
/// How many chunks the node that sends may be ahead of the one that receives.
const AHEAD: usize = 4;
/// What is said of one side when the other has ended.
const OTHER_SIDE: &str = "the other node's side of the copy has ended";

impl Node {
    /// The volume of this name in a pool, `None` when there is none, as of libvirt's last look.
    pub async fn volume(&self, pool: Uuid, name: &str) -> Result<Option<VolumeView>> {
        let wanted = name.to_owned();
        let found = self
            .ask(&format!("read volume {name}"), move |connection| {
                let pool = connection.pool(pool)?;
                view(&pool.volume_by_name(&wanted)?)
            })
            .await;
        if_there(found)
    }

    /// As [`Node::send_volume`], of an image that stands on no other: what has arrived must be one that a VM may be
    /// made of.
    pub async fn send_image(
        &self,
        from: (Uuid, &str),
        length: u64,
        to: &Node,
        new: (Uuid, &str),
        mode: &str,
        progress: impl Fn(u64) -> bool + Send + 'static,
    ) -> Result<VolumeView> {
        let (header, volume) = self.send(from, length, to, new, mode, progress).await?;
        match Image::inspect(&header, length) {
            Ok(_) => Ok(volume),
            Err(why) => Err(to.error(ErrorKind::Refused, &sending(from.1, self, to), &why)),
        }
    }

    /// Copies the volume `file` of a pool of this node, of `length` bytes, to another node, byte for byte, as the volume
    /// `name` in a pool there, whose file gets this mode (`0444`). Holes stay holes. `progress` gets the bytes copied so
    /// far, holes counted, and says whether to go on. What the header says is the caller's affair: a qcow2 may stand on
    /// another image, by its path.
    pub async fn send_volume(
        &self,
        from: (Uuid, &str),
        length: u64,
        to: &Node,
        new: (Uuid, &str),
        mode: &str,
        progress: impl Fn(u64) -> bool + Send + 'static,
    ) -> Result<VolumeView> {
        Ok(self.send(from, length, to, new, mode, progress).await?.1)
    }

    /// The header that has arrived, and the volume.
    async fn send(
        &self,
        (pool, file): (Uuid, &str),
        length: u64,
        to: &Node,
        (to_pool, name): (Uuid, &str),
        mode: &str,
        progress: impl Fn(u64) -> bool + Send + 'static,
    ) -> Result<(Vec<u8>, VolumeView)> {
        let doing = sending(file, self, to);
        // In the order of their names: two copies in opposite directions must not wait for each other's place.
        let (first, second) = if self.name() < to.name() { (self, to) } else { (to, self) };
        let _places = (first.place_for_copy().await, second.place_for_copy().await);
        let (sender, receiver) = sync_channel(AHEAD);
        let (file, name, mode) = (file.to_owned(), name.to_owned(), mode.to_owned());
        let sending = self.bulk(COPY, &doing, move |connection| {
            send_pieces(Download::of_file(connection, pool, &file, length)?, &sender)
        });
        let receiving = to.bulk(COPY, &doing, move |connection| {
            let pool = connection.pool(to_pool)?;
            let target = create_for_copy(&pool, &name, length, &mode)?;
            upload(connection, &target, length, &progress, |buffer| {
                let (data, piece) = receiver.recv().map_err(|_| failed(OTHER_SIDE))?;
                *buffer = data;
                Ok(piece)
            })?;
            arrived(connection, &pool, &target, length)
        });
        let (sent, received) = tokio::join!(sending, receiving);
        match (sent, received) {
            (Ok(sent), Ok((header, volume))) if sent == header && volume.physical == length => Ok((header, volume)),
            (Ok(_), Ok(_)) => Err(to.error(ErrorKind::Failed, &doing, DIFFERS)),
            // The one that was only left alone by the other isn't the cause.
            (Err(error), Ok(_)) => Err(error),
            (Ok(_), Err(error)) => Err(error),
            (Err(sent), Err(received)) => Err(if sent.cause == OTHER_SIDE { received } else { sent }),
        }
    }

    /// Copies the volume `file` of a pool, of `length` bytes, byte for byte into the new volume `name` of the same or
    /// another pool of this node; all else as [`Node::send_volume`]. It takes one thread, since the bytes come and go by
    /// turns.
    pub async fn copy_volume(
        &self,
        (pool, file): (Uuid, &str),
        length: u64,
        (to_pool, name): (Uuid, &str),
        mode: &str,
        progress: impl Fn(u64) -> bool + Send + 'static,
    ) -> Result<VolumeView> {
        let doing = format!("copy volume {file} into volume {name}");
        let (file, name, mode) = (file.to_owned(), name.to_owned(), mode.to_owned());
        let _place = self.place_for_copy().await;
        let copied = self.bulk(COPY, &doing, move |connection| {
            let mut from = Download::of_file(connection, pool, &file, length)?;
            let pool = connection.pool(to_pool)?;
            let target = create_for_copy(&pool, &name, length, &mode)?;
            upload(connection, &target, length, &progress, |buffer| from.next(buffer))?;
            Ok((from.unchanged()?, arrived(connection, &pool, &target, length)?))
        });
        match copied.await? {
            (sent, (header, volume)) if sent == header && volume.physical == length => Ok(volume),
            _ => Err(self.error(ErrorKind::Failed, &doing, DIFFERS)),
        }
    }
}

fn sending(file: &str, from: &Node, to: &Node) -> String {
    format!("copy image {file} from node {} to node {}", from.name(), to.name())
}

/// Sends all pieces of a download; returns its header.
fn send_pieces(mut from: Download, to: &SyncSender<(Vec<u8>, Piece)>) -> libvirt::Result<Vec<u8>> {
    loop {
        let mut data = vec![0; CHUNK];
        let piece = from.next(&mut data)?;
        match piece {
            Piece::Data(len) => data.truncate(len),
            Piece::Hole(_) => data.clear(),
            Piece::End => return from.unchanged(),
        }
        to.send((data, piece)).map_err(|_| failed(OTHER_SIDE))?;
    }
}
