//! What stores answer in XML: pages of a list, and what they say when they refuse. Foreign bytes into our words,
//! without I/O.
//!
//! Elements are told by their names alone, whatever their namespace, and blanks in a text count: a key may begin
//! with one.

use percent_encoding::percent_decode_str;
use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::Event;

/// One object of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its whole name in the bucket.
    pub key: String,
    /// Its size; some gateways leave it out.
    pub size: Option<u64>,
    /// Its `ETag` as it is written there.
    pub tag: Option<String>,
    /// Whether the store says that it stands for a folder.
    pub folder: bool,
}

/// A page of a list.
#[derive(Debug, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub entries: Vec<Entry>,
    /// Where the list goes on.
    pub next: Next,
}

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Nowhere: this was the last page.
    End,
    /// At a place that the store names.
    Token(String),
    /// Behind a key, in the first version of S3's list.
    Marker(String),
}

/// The page of S3's list, in either version, as Google's XML API has it too.
pub fn s3_page(xml: &[u8]) -> Result<Page, String> {
    let mut entries = Vec::new();
    let mut entry = Entry::default();
    let (mut truncated, mut encoded) = (None, false);
    let (mut token, mut marker) = (String::new(), String::new());
    walk(xml, &["ListBucketResult"], |path, text| {
        match path {
            ["IsTruncated"] => truncated = Some(text.trim() == "true"),
            ["NextContinuationToken"] => text.clone_into(&mut token),
            ["NextMarker"] => text.clone_into(&mut marker),
            ["EncodingType"] => encoded = text.trim() == "url",
            ["Contents", "Key"] => text.clone_into(&mut entry.key),
            ["Contents", "Size"] => entry.size = Some(size(text)?),
            ["Contents", "ETag"] => entry.tag = Some(text.to_owned()),
            ["Contents"] => entries.push(std::mem::take(&mut entry)),
            _ => {}
        }
        Ok(())
    })?;
    // Some servers repeat that encoded keys were asked for, and do not encode them.
    if encoded && entries.iter().all(|entry| is_encoded(&entry.key)) {
        for key in entries.iter_mut().map(|entry| &mut entry.key).chain([&mut marker]) {
            *key = decoded(key)?;
        }
    }
    let next = match (truncated, entries.last()) {
        (Some(false), _) => Next::End,
        _ if !token.is_empty() => Next::Token(token),
        _ if !marker.is_empty() => Next::Marker(marker),
        (Some(true), Some(last)) => Next::Marker(last.key.clone()),
        (Some(true), None) => return Err("it says that the list goes on, and not where".to_owned()),
        (None, _) => Next::End,
    };
    Ok(Page { entries, next })
}

/// The page of Azure's list.
pub fn azure_page(xml: &[u8]) -> Result<Page, String> {
    let mut entries = Vec::new();
    let mut entry = Entry::default();
    let mut marker = String::new();
    let mut encoded = false;
    walk(xml, &["EnumerationResults"], |path, text| {
        match path {
            ["NextMarker"] => text.clone_into(&mut marker),
            ["Blobs", "Blob", "Name"] => text.clone_into(&mut entry.key),
            ["Blobs", "Blob", "Name", "@Encoded"] => encoded = text == "true",
            ["Blobs", "Blob", "Properties", "Content-Length"] => entry.size = Some(size(text)?),
            ["Blobs", "Blob", "Properties", "Etag"] => entry.tag = Some(text.to_owned()),
            ["Blobs", "Blob", "Properties", "ResourceType"] => entry.folder |= text == "directory",
            ["Blobs", "Blob", "Metadata", name] if name.eq_ignore_ascii_case("hdi_isfolder") => {
                entry.folder |= text.eq_ignore_ascii_case("true");
            }
            ["Blobs", "Blob"] => {
                if std::mem::take(&mut encoded) {
                    let key =
                        percent_decode_str(&entry.key).decode_utf8().map_err(|error| error.to_string())?;
                    entry.key = key.into_owned();
                }
                entries.push(std::mem::take(&mut entry));
            }
            _ => {}
        }
        Ok(())
    })?;
    let next = if marker.is_empty() { Next::End } else { Next::Token(marker) };
    Ok(Page { entries, next })
}

/// The texts of the first elements with these names, wherever they are.
pub fn texts<const N: usize>(xml: &[u8], names: [&str; N]) -> [Option<String>; N] {
    let mut found = [const { None }; N];
    // What was found before the text stops being XML counts.
    let _ = walk(xml, &[], |path, text| {
        let place = names.iter().position(|name| path.last() == Some(name));
        if let Some(place) = place
            && found[place].is_none()
        {
            found[place] = Some(text.trim().to_owned());
        }
        Ok(())
    });
    found
}

fn size(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| format!("the size {text:?} is none"))
}

/// Whether a key has no letter that a store which encodes keys would have encoded.
fn is_encoded(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*~!'()/+%".contains(&byte))
}

/// A key as lists have it that are asked for encoded ones: as in a query, where a `+` is a blank.
fn decoded(key: &str) -> Result<String, String> {
    let key = key.replace('+', " ");
    percent_decode_str(&key)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|error| error.to_string())
}

/// Gives `see` each element at its end, with its path below the root and its own text; attributes are given
/// before it as `@name`. The root has to be one of `roots`, unless none is named; a text that ends before its
/// root does is an error.
fn walk(
    xml: &[u8],
    roots: &[&str],
    mut see: impl FnMut(&[&str], &str) -> Result<(), String>,
) -> Result<(), String> {
    let text = std::str::from_utf8(xml).map_err(|_| "it is no text".to_owned())?;
    let mut reader = Reader::from_str(text.trim_start_matches('\u{feff}').trim_start());
    reader.config_mut().expand_empty_elements = true;
    let mut path: Vec<String> = Vec::new();
    let mut texts: Vec<String> = Vec::new();
    let mut ended = false;
    loop {
        match reader.read_event().map_err(|error| error.to_string())? {
            Event::Start(start) => {
                let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                if path.is_empty() && !roots.is_empty() && !roots.contains(&name.as_str()) {
                    return Err(format!("it is <{name}>, and no <{}>", roots.join("> or <")));
                }
                path.push(name);
                texts.push(String::new());
                for attribute in start.attributes().flatten() {
                    let name = format!("@{}", String::from_utf8_lossy(attribute.key.local_name().as_ref()));
                    path.push(name);
                    see(&below_root(&path), &String::from_utf8_lossy(&attribute.value))?;
                    path.pop();
                }
            }
            Event::Text(part) => add(&mut texts, &part.decode().map_err(|error| error.to_string())?),
            Event::CData(part) => add(&mut texts, &part.decode().map_err(|error| error.to_string())?),
            Event::GeneralRef(reference) => {
                let name = reference.decode().map_err(|error| error.to_string())?;
                match reference.resolve_char_ref().map_err(|error| error.to_string())? {
                    Some(character) => add(&mut texts, character.encode_utf8(&mut [0; 4])),
                    None => add(
                        &mut texts,
                        resolve_predefined_entity(&name).ok_or_else(|| format!("&{name}; means nothing"))?,
                    ),
                }
            }
            Event::End(_) => {
                let text = texts.pop().unwrap_or_default();
                see(&below_root(&path), &text)?;
                path.pop();
                ended |= path.is_empty();
            }
            Event::Eof if ended && path.is_empty() => return Ok(()),
            Event::Eof => return Err("it ends before its end".to_owned()),
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) | Event::Empty(_) => {}
        }
    }
}

fn below_root(path: &[String]) -> Vec<&str> {
    path.iter().skip(1).map(String::as_str).collect()
}

fn add(texts: &mut [String], part: &str) {
    if let Some(text) = texts.last_mut() {
        text.push_str(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(rest: &str) -> Result<Page, String> {
        let xml = format!(
            "<?xml version=\"1.0\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{rest}\
             </ListBucketResult>"
        );
        s3_page(xml.as_bytes())
    }

    const TWO: &str = "<Contents><Key>a</Key><Size>1</Size></Contents><Contents><Key>b</Key></Contents>";

    #[test]
    fn a_list_goes_on_where_the_store_says_or_behind_its_last_key() {
        for (rest, next) in [
            ("<IsTruncated>false</IsTruncated>", Next::End),
            ("<IsTruncated>false</IsTruncated><NextContinuationToken>t</NextContinuationToken>", Next::End),
            (
                "<IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;</NextContinuationToken>",
                Next::Token("t&".into()),
            ),
            ("<IsTruncated>true</IsTruncated><NextMarker>m</NextMarker>", Next::Marker("m".into())),
            ("<IsTruncated>true</IsTruncated>", Next::Marker("b".into())),
            ("<IsTruncated>true</IsTruncated><NextContinuationToken/>", Next::Marker("b".into())),
            ("<NextContinuationToken>t</NextContinuationToken>", Next::Token("t".into())),
            ("", Next::End),
        ] {
            assert_eq!(s3(&format!("{rest}{TWO}")).unwrap().next, next, "{rest}");
        }
        assert!(s3("<IsTruncated>true</IsTruncated>").is_err());
    }

    #[test]
    fn an_object_has_the_key_that_is_written_there_blanks_and_all() {
        let page = s3("<Contents><Key> a&amp;&#x62;<![CDATA[<c>]]>\u{e9} </Key><Size>5</Size>\
                       <ETag>&quot;x&quot;</ETag><Owner><ID>o</ID></Owner></Contents>");
        let entry =
            Entry { key: " a&b<c>\u{e9} ".into(), size: Some(5), tag: Some("\"x\"".into()), folder: false };
        assert_eq!(page.unwrap().entries, [entry]);
        let encoded = s3("<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>\
                          <Contents><Key>a+b%2Bc%25/%C3%A9</Key></Contents>");
        let encoded = encoded.unwrap();
        assert_eq!(encoded.entries[0].key, "a b+c%/\u{e9}");
        assert_eq!(encoded.next, Next::Marker("a b+c%/\u{e9}".into()));
        let plain = s3("<EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>\
                        <Contents><Key>a+b%41</Key></Contents><Contents><Key>a b</Key></Contents>");
        assert_eq!(plain.unwrap().entries[0].key, "a+b%41", "a server that only repeats what was asked for");
    }

    #[test]
    fn azures_list_tells_folders_from_files() {
        let xml = "\u{feff}<?xml version=\"1.0\"?><EnumerationResults><Blobs>\
                   <Blob><Name>m/a</Name><Properties><Content-Length>3</Content-Length><Etag>0x8D</Etag>\
                   </Properties><Metadata/></Blob>\
                   <Blob><Name Encoded=\"true\">m%EF%BF%BE</Name><Properties><Content-Length>0</Content-Length>\
                   </Properties><Metadata><Hdi_isfolder>true</Hdi_isfolder></Metadata></Blob>\
                   </Blobs><NextMarker>2!x</NextMarker></EnumerationResults>";
        let page = azure_page(xml.as_bytes()).unwrap();
        assert_eq!(page.next, Next::Token("2!x".into()));
        let file = Entry { key: "m/a".into(), size: Some(3), tag: Some("0x8D".into()), folder: false };
        let folder = Entry { key: "m\u{fffe}".into(), size: Some(0), tag: None, folder: true };
        assert_eq!(page.entries, [file, folder]);
        let last = azure_page(b"<EnumerationResults><Blobs/><NextMarker /></EnumerationResults>").unwrap();
        assert_eq!(last, Page { entries: Vec::new(), next: Next::End });
    }

    #[test]
    fn what_is_no_list_or_half_of_one_is_told() {
        for xml in [
            "",
            "{}",
            "<!DOCTYPE html><html><body>Console</body></html>",
            "<!doctype html><html><head><meta charset=utf-8><link rel=x></head>",
            "<ListBucketResult><IsTruncated>false</IsTruncated>",
            "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
            "<EnumerationResults></EnumerationResults>",
        ] {
            assert!(s3_page(xml.as_bytes()).is_err(), "{xml}");
        }
        assert!(s3_page(b"<html/>").unwrap_err().contains("<html>, and no <ListBucketResult>"));
        assert!(azure_page(b"<ListBucketResult/>").is_err() && s3_page(b"\xff").is_err());
    }

    #[test]
    fn a_refusal_is_read_as_far_as_it_is_xml() {
        let xml = b"<Error><Code>NoSuchKey</Code><Message>It is\nnot there</Message><oops>";
        let found = texts(xml, ["Message", "Code", "Region"]);
        assert_eq!(found, [Some("It is\nnot there".into()), Some("NoSuchKey".into()), None]);
        assert_eq!(texts(b"nothing", ["Code"]), [None]);
    }
}
