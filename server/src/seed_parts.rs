//! A seed's files, and the parts of its user-data: <https://cloudinit.readthedocs.io/en/latest/explanation/format.html>.

use crate::{Error, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use hadris_iso::{
    joliet::JolietLevel,
    read::{IsoReader, PathSeparator},
    write::{
        File, InputFiles, IsoImageWriter,
        options::{BaseIsoLevel, CreationFeatures, IsoFormatOptions},
    },
};
use std::{collections::BTreeMap, io::Cursor, sync::Arc};

/// The file with the user-data.
pub const USER_DATA: &str = "user-data";
/// The longest name of a file that is read back, in bytes.
const NAME_MAX: usize = 256;

/// The files of a seed, by name. Not `Debug`: there are hashes of passwords in them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct SeedFiles(BTreeMap<String, Vec<u8>>);

impl SeedFiles {
    /// The seed with a further file.
    pub fn with(mut self, name: &str, text: String) -> SeedFiles {
        self.0.insert(name.to_owned(), text.into_bytes());
        self
    }

    /// The files of an image; `None` when it is none that [`SeedFiles::to_iso`] has made.
    pub fn read(image: &[u8]) -> Option<SeedFiles> {
        let mut reader = IsoReader::open(Cursor::new(image)).ok()?;
        let root = reader.roots().last()?;
        let entries: Vec<_> = reader.open_dir(root).collect::<std::result::Result<_, _>>().ok()?;
        let mut files = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.is_file()) {
            let mut name = [0; NAME_MAX];
            let name = entry.name().decode_into(&mut name).ok()?.to_owned();
            let mut file = reader.open_file(entry).ok()?;
            // Its length is the image's word.
            let mut bytes = vec![0; usize::try_from(file.len()).ok().filter(|length| *length <= image.len())?];
            let mut done = 0;
            while done < bytes.len() {
                match file.read_chunk(&mut bytes[done..]).ok()? {
                    0 => return None,
                    n => done += n,
                }
            }
            files.insert(name, bytes);
        }
        files.contains_key("meta-data").then_some(SeedFiles(files))
    }

    /// The image's bytes: ISO 9660, labelled CIDATA.
    pub fn to_iso(&self) -> Result<Vec<u8>> {
        let file =
            |(name, bytes): (&String, &Vec<u8>)| File::File { name: Arc::new(name.clone()), contents: bytes.clone() };
        let files =
            InputFiles { path_separator: PathSeparator::ForwardSlash, files: self.0.iter().map(file).collect() };
        let options = IsoFormatOptions {
            volume_name: "CIDATA".to_owned(),
            sector_size: 2048,
            path_separator: PathSeparator::ForwardSlash,
            features: CreationFeatures {
                filenames: BaseIsoLevel::Level1 { supports_lowercase: false, supports_rrip: false },
                long_filenames: false,
                // Linux reads names like `user-data` from the Joliet tree.
                joliet: Some(JolietLevel::Level3),
                rock_ridge: None,
                el_torito: None,
                ..CreationFeatures::default()
            },
            system_id: None,
            volume_set_id: None,
            publisher_id: None,
            preparer_id: None,
            application_id: None,
            strict_charset: false,
        };
        let mut image = Cursor::new(Vec::new());
        IsoImageWriter::create(&mut image, files, options)
            .map_err(|error| Error::Internal(format!("make the seed: {error:?}")))?;
        let mut bytes = image.into_inner();
        bytes.resize(bytes.len().next_multiple_of(2048), 0);
        Ok(bytes)
    }

    /// The seed with this part of its user-data instead of an earlier one of that name, at the end; or without it. All else stays.
    /// `None` when its user-data can't be read.
    pub fn with_part(self, name: &str, text: Option<&str>) -> Option<SeedFiles> {
        let before = match self.0.get(USER_DATA) {
            Some(bytes) => UserData::read(std::str::from_utf8(bytes).ok()?)?,
            None => UserData { boundary: "vmyard".to_owned(), parts: Vec::new() },
        };
        let after = before.with(name, text);
        Some(self.with(USER_DATA, after.to_text()))
    }
}

/// User-data of several parts, a MIME message.
pub struct UserData {
    boundary: String,
    /// Each with its headers.
    parts: Vec<String>,
}

impl UserData {
    /// None yet. The boundary is in no part, since those are in base64.
    pub fn new(boundary: String) -> UserData {
        UserData { boundary, parts: Vec::new() }
    }

    /// What a seed has: one part alone, or several as [`UserData::to_text`] writes them.
    fn read(text: &str) -> Option<UserData> {
        if !text.to_ascii_lowercase().starts_with("content-type:") && !text.to_ascii_lowercase().starts_with("mime-") {
            let alone = UserData { boundary: "vmyard".to_owned(), parts: Vec::new() };
            return Some(alone.with("vmyard.yaml", Some(text)));
        }
        let boundary = text.split_once("boundary=\"")?.1.split_once('"')?.0.to_owned();
        let delimiter = format!("--{boundary}");
        let mut pieces = text.split(&delimiter);
        pieces.next()?;
        let mut parts: Vec<String> = pieces.map(|piece| piece.trim_start().to_owned()).collect();
        // What is behind the last boundary: its own two hyphens.
        (parts.pop()?.trim() == "--").then_some(UserData { boundary, parts })
    }

    /// The message with this part at its end, in place of an earlier one of that name; or without it.
    pub fn with(mut self, name: &str, text: Option<&str>) -> UserData {
        let named = format!("filename=\"{name}\"\r\n");
        self.parts.retain(|part| !part.contains(&named));
        if let Some(text) = text {
            let encoded = STANDARD.encode(text);
            let lines = encoded.as_bytes().chunks(76).map(|line| String::from_utf8_lossy(line).into_owned() + "\r\n");
            self.parts.push(format!(
                "Content-Type: {}; charset=\"utf-8\"\r\nMIME-Version: 1.0\r\n\
                 X-Merge-Type: list(append)+dict(no_replace,recurse_list)+str()\r\n\
                 Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; {named}\r\n{}",
                content_type(text),
                lines.collect::<String>()
            ));
        }
        self
    }

    /// The message.
    pub fn to_text(&self) -> String {
        let boundary = &self.boundary;
        let parts = self.parts.iter().map(|part| format!("--{boundary}\r\n{part}")).collect::<String>();
        format!(
            "Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\nMIME-Version: 1.0\r\n\r\n{parts}--{boundary}--\r\n"
        )
    }
}

/// The MIME type of user-data, by its first line, as cloud-init tells them apart.
fn content_type(user_data: &str) -> &'static str {
    match user_data {
        text if text.starts_with("#cloud-config-archive") => "text/cloud-config-archive",
        text if text.starts_with("#cloud-config") => "text/cloud-config",
        text if text.starts_with("#cloud-boothook") => "text/cloud-boothook",
        text if text.starts_with("#include") => "text/x-include-url",
        text if text.starts_with("#!") => "text/x-shellscript",
        _ => "text/plain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user_data(files: &SeedFiles) -> String {
        String::from_utf8(files.0[USER_DATA].clone()).unwrap()
    }

    #[test]
    fn a_seed_is_read_back() {
        let long = "#cloud-config\n".to_owned() + &"# x\n".repeat(4000);
        let files = SeedFiles::default().with("meta-data", "instance-id: 1\n".into()).with(USER_DATA, long);
        let files = files.with("network-config", "version: 2\n".into());
        let image = files.to_iso().unwrap();
        assert!(SeedFiles::read(&image).unwrap() == files);
        assert!(SeedFiles::read(&image[..2048 * 17]).is_none());
        assert!(SeedFiles::read(&[]).is_none());
    }

    #[test]
    fn parts_come_and_go() {
        let alone =
            SeedFiles::default().with("meta-data", "a".into()).with(USER_DATA, "#cloud-config\nusers: []\n".into());
        let one = alone.clone().with_part("reset", Some("#cloud-config\nbootcmd: [a]\n")).unwrap();
        assert_eq!(user_data(&one).matches("--vmyard\r\n").count(), 2);
        let again = one.clone().with_part("reset", Some("#cloud-config\nbootcmd: [a]\n")).unwrap();
        assert!(again == one);
        let other = one.clone().with_part("reset2", Some("#!/bin/sh\n")).unwrap();
        assert!(user_data(&other).contains("text/x-shellscript"));
        assert!(other.with_part("reset2", None).unwrap() == one);
        // What was there is there, encoded.
        assert!(user_data(&one).contains(&STANDARD.encode("#cloud-config\nusers: []\n")));
        assert!(SeedFiles::default().with(USER_DATA, "MIME-Version: 1.0\n\nx".into()).with_part("a", None).is_none());
    }
}
