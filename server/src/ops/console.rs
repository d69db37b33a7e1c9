//! Consoles of VMs, and recordings.

use super::{page, vm::Subject};
use crate::{
    Context, Error, Result,
    app::Reached,
    console::{lines, recordings, tickets, vnc},
    seeds,
    task::{Outline, Work},
};
use api::{
    Page, Time,
    console::{
        DeleteRecording, DeletedRecording, GetSerialConsole, GetSerialLog, GetVmScreenshot, GetVncConsole,
        LOG_BYTES_MAX, ListRecordings, Recordings, Screenshot, SerialConsole, SerialLog, VncConsole,
    },
    task::Target,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hypervisor::{
    Node,
    domain::{Picture, Power},
};
use uuid::Uuid;

/// `get-vnc-console`
pub async fn vnc(context: Context, request: GetVncConsole) -> Result<(VncConsole, Target)> {
    let app = &context.app;
    let vm = on(&context, &request.vm).await?;
    vm.node.must_have_display(vm.id).await?;
    let port = vnc::listen(app, &vm.node, vm.id, &context.caller).await?;
    let (secret, expires_at) = app.consoles.tickets.issue(vm.id, &context.caller, tickets::Purpose::Vnc)?;
    let ip = port.address.ip();
    let console = VncConsole {
        vm: vm.id,
        name: vm.entry.name().to_owned(),
        host: if ip.is_unspecified() { machine(&context.reached, app.config.listen.ip()) } else { ip.to_string() },
        port: port.address.port(),
        password: port.password,
        websocket_url: websocket_url(&context, "vnc-console", vm.id, &secret),
        expires_at,
    };
    Ok((console, vm.target()))
}

/// `get-serial-console`
pub async fn serial(context: Context, request: GetSerialConsole) -> Result<(SerialConsole, Target)> {
    let app = &context.app;
    if request.read_only && request.take_over {
        return Err(Error::field("take_over", "is about typing, and read_only says that nothing is typed"));
    }
    let vm = match request.wait_for_start {
        true => Subject::find(app, &request.vm)?,
        false => on(&context, &request.vm).await?,
    };
    if request.record {
        let data_dir = app.config.data_dir.clone();
        blocking(move || recordings::room(&data_dir)).await?;
    }
    let record = request.record.then(Uuid::now_v7);
    let options = tickets::Serial {
        read_only: request.read_only,
        take_over: request.take_over,
        wait_for_start: request.wait_for_start,
        force: request.force,
        record,
    };
    let (secret, expires_at) = app.consoles.tickets.issue(vm.id, &context.caller, tickets::Purpose::Serial(options))?;
    let console = SerialConsole {
        vm: vm.id,
        name: vm.entry.name().to_owned(),
        websocket_url: websocket_url(&context, "serial-console", vm.id, &secret),
        expires_at,
        recording: record,
    };
    Ok((console, vm.target()))
}

/// `get-vm-screenshot`
pub async fn screenshot(context: Context, request: GetVmScreenshot) -> Result<(Screenshot, Target)> {
    let vm = on(&context, &request.vm).await?;
    let (width, height, png_base64) = picture(&vm.node, vm.id).await?;
    let taken_at = Time::now();
    let name = vm.entry.name().to_owned();
    Ok((Screenshot { vm: vm.id, name, taken_at, width, height, png_base64 }, vm.target()))
}

/// A picture of a VM's screen: width, height, and the PNG in Base64.
pub(super) async fn picture(node: &Node, vm: Uuid) -> Result<(u32, u32, String)> {
    let picture = node.screenshot(vm).await?;
    let (width, height, png) = blocking(move || to_png(&picture)).await?;
    Ok((width, height, STANDARD.encode(png)))
}

/// `get-serial-log`
pub async fn serial_log(context: Context, request: GetSerialLog) -> Result<(SerialLog, Target)> {
    let vm = Subject::find(&context.app, &request.vm)?;
    let has_none = vm.entry.seen.as_ref().is_some_and(|seen| seen.view.serial_log.is_none());
    if vm.entry.record.is_none() || has_none {
        return Err(Error::Unsupported {
            detail: format!("VM {} was not made by Vmyard, which keeps no log of its serial line", vm.entry.name()),
            hint: Some("get-serial-console shows what it says from now on".to_owned()),
        });
    }
    let pool = seeds::pool(&vm.node).await?;
    let most = request.max_bytes.unwrap_or(LOG_BYTES_MAX);
    let tail = seeds::serial_tail(&vm.node, pool.uuid, vm.id, most).await?.unwrap_or_default();
    let log = SerialLog {
        vm: vm.id,
        name: vm.entry.name().to_owned(),
        bytes: tail.bytes.len() as u64,
        text: String::from_utf8_lossy(&tail.bytes).into_owned(),
    };
    Ok((log, vm.target()))
}

/// `list-recordings`
pub async fn list_recordings(context: Context, request: ListRecordings) -> Result<Recordings> {
    let data_dir = context.app.config.data_dir.clone();
    let mut all = blocking(move || recordings::list(&data_dir)).await?;
    if let Some(vm) = &request.vm {
        all.retain(|one| one.vm.to_string().eq_ignore_ascii_case(vm) || one.vm_name.eq_ignore_ascii_case(vm));
    }
    let page = Page { limit: request.limit, cursor: request.cursor };
    // The newest first, so the keys are turned round.
    let cut = page::cut(all, &page, |one| format!("{:032x}", u128::MAX - one.id.as_u128()))?;
    Ok(Recordings { recordings: cut.rows, next_cursor: cut.next_cursor, total: cut.total })
}

/// `delete-recording`
pub async fn delete_recording(context: Context, request: DeleteRecording) -> Result<Work<DeletedRecording>> {
    let (id, data_dir) = (request.recording, context.app.config.data_dir.clone());
    let found = {
        let data_dir = data_dir.clone();
        blocking(move || Ok(recordings::find(&data_dir, id))).await?
    };
    let found = found.ok_or_else(|| Error::not_found("recording", id.to_string()))?;
    let target = Target { kind: "recording".to_owned(), id, name: found.vm_name };
    Ok(Work::new(target, Vec::new(), Outline::of(&["delete-recording"]), move |task| async move {
        task.last_step("delete-recording", None, blocking(move || recordings::delete(&data_dir, id))).await?;
        Ok(DeletedRecording { id })
    }))
}

/// The VM of this name or id, which must be on, as its node says now.
async fn on(context: &Context, reference: &str) -> Result<Subject> {
    let vm = Subject::find(&context.app, reference)?;
    match vm.power(&context.app).await? {
        Power::Running | Power::Paused => Ok(vm),
        Power::Off => Err(lines::off(vm.entry.name())),
    }
}

/// Where a WebSocket is, on the address by which the caller reached this server.
fn websocket_url(context: &Context, kind: &str, vm: Uuid, secret: &str) -> String {
    let Reached { host, https } = &context.reached;
    let scheme = if *https { "wss" } else { "ws" };
    let host = if host.is_empty() { context.app.config.listen.to_string() } else { host.clone() };
    format!("{scheme}://{host}/api/{kind}/{vm}?ticket={secret}")
}

/// The machine by which the caller reached this server, without the port.
fn machine(reached: &Reached, otherwise: std::net::IpAddr) -> String {
    let host = match reached.host.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => host,
        _ => reached.host.as_str(),
    };
    match host.trim_start_matches('[').trim_end_matches(']') {
        "" => otherwise.to_string(),
        host => host.to_owned(),
    }
}

/// Work on this server's files, or that takes long, away from the threads that answer calls.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    #[expect(clippy::disallowed_methods, reason = "no node is asked: it can't hang with one")]
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Error::Internal("work on a file panicked".to_owned())))
}

/// A picture as PNG, with its width and height.
fn to_png(picture: &Picture) -> Result<(u32, u32, Vec<u8>)> {
    let failed = |why: &str| Error::Internal(format!("read a picture of {}: {why}", picture.mime));
    if picture.mime == "image/png" {
        let decoder = png::Decoder::new(std::io::Cursor::new(&picture.bytes));
        let reader = decoder.read_info().map_err(|error| failed(&error.to_string()))?;
        let (width, height) = reader.info().size();
        return Ok((width, height, picture.bytes.clone()));
    }
    let (width, height, pixels) = ppm(&picture.bytes).ok_or_else(|| failed("no PPM of 8 bits"))?;
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(|error| failed(&error.to_string()))?;
    writer.write_image_data(pixels).map_err(|error| failed(&error.to_string()))?;
    writer.finish().map_err(|error| failed(&error.to_string()))?;
    Ok((width, height, bytes))
}

/// Width, height and pixels of a binary PPM (<https://netpbm.sourceforge.net/doc/ppm.html>) as QEMU writes it.
fn ppm(bytes: &[u8]) -> Option<(u32, u32, &[u8])> {
    let mut at = 0;
    let mut word = || {
        while bytes.get(at)?.is_ascii_whitespace() {
            at += 1;
        }
        let begin = at;
        while !bytes.get(at)?.is_ascii_whitespace() {
            at += 1;
        }
        std::str::from_utf8(&bytes[begin..at]).ok()
    };
    let magic = word()?;
    let (width, height, most): (u32, u32, u32) = (word()?.parse().ok()?, word()?.parse().ok()?, word()?.parse().ok()?);
    let length = (width as usize).checked_mul(height as usize)?.checked_mul(3)?;
    let pixels = bytes.get(at + 1..at + 1 + length)?;
    (magic == "P6" && most == 255).then_some((width, height, pixels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_become_png() {
        let picture =
            Picture { mime: "image/x-portable-pixmap".into(), bytes: b"P6\n2 1\n255\n\0\x01\x02\xff\xfe\xfd".to_vec() };
        let (width, height, bytes) = to_png(&picture).unwrap();
        assert_eq!((width, height), (2, 1));
        let mut reader = png::Decoder::new(std::io::Cursor::new(&bytes)).read_info().unwrap();
        let mut pixels = vec![0; 6];
        reader.next_frame(&mut pixels).unwrap();
        assert_eq!(pixels, [0, 1, 2, 255, 254, 253]);
        let again = to_png(&Picture { mime: "image/png".into(), bytes: bytes.clone() }).unwrap();
        assert_eq!(again, (2, 1, bytes));
        for broken in [&b"P6\n2 1\n255\n\0"[..], b"P5\n1 1\n255\n\0\0\0", b"P6\n99999 99999\n255\n", b""] {
            assert!(ppm(broken).is_none());
        }
    }

    #[test]
    fn machines() {
        let of = |host: &str| {
            machine(&Reached { host: host.to_owned(), https: false }, std::net::IpAddr::from([127, 0, 0, 1]))
        };
        assert_eq!(of("vm.example:7777"), "vm.example");
        assert_eq!(of("vm.example"), "vm.example");
        assert_eq!(of("[::1]:7777"), "::1");
        assert_eq!(of("[::1]"), "::1");
        assert_eq!(of(""), "127.0.0.1");
    }
}
