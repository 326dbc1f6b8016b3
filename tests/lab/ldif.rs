//! The little of LDIF that the lab's directories are told and tell in. Every
//! value travels in base64, so that none can be mistaken for syntax.

/// An entry to add.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    dn: String,
    values: Vec<(String, Vec<u8>)>,
}

impl Entry {
    pub(crate) fn new(dn: &str) -> Self {
        Self { dn: dn.to_owned(), values: Vec::new() }
    }

    pub(crate) fn with(mut self, attribute: &str, value: impl AsRef<[u8]>) -> Self {
        self.values.push((attribute.to_owned(), value.as_ref().to_vec()));
        self
    }
}

/// Entries to add, in this order.
pub(crate) fn entries(entries: &[Entry]) -> String {
    entries
        .iter()
        .map(|entry| {
            let values: String = entry.values.iter().map(|(name, value)| line(name, value)).collect();
            format!("{}{values}\n", line("dn", entry.dn.as_bytes()))
        })
        .collect()
}

/// A change that replaces all values of one attribute.
pub(crate) fn replace(dn: &str, attribute: &str, values: &[impl AsRef<[u8]>]) -> String {
    let values: String = values.iter().map(|value| line(attribute, value.as_ref())).collect();
    format!("{}changetype: modify\nreplace: {attribute}\n{values}-\n\n", line("dn", dn.as_bytes()))
}

/// A change that adds one value to an attribute.
pub(crate) fn add(dn: &str, attribute: &str, value: &str) -> String {
    let value = line(attribute, value.as_bytes());
    format!("{}changetype: modify\nadd: {attribute}\n{value}-\n\n", line("dn", dn.as_bytes()))
}

fn line(attribute: &str, value: &[u8]) -> String {
    format!("{attribute}:: {}\n", base64(value))
}

/// The values of an attribute in what a client printed; lines must not be wrapped.
pub(crate) fn values(printed: &str, attribute: &str) -> Vec<String> {
    printed
        .lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(attribute).then(|| value.trim_start_matches([':', ' ']).to_owned())
        })
        .collect()
}

/// A value as part of a DN, for the lab's own use: everything but plain
/// letters and digits by number, so that no rule of escaping is needed.
pub(crate) fn escaped(value: &str) -> String {
    let byte = |byte: u8| {
        if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("\\{byte:02x}") }
    };
    value.bytes().map(byte).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|three| {
            let number = (0..3).fold(0, |sum, place| sum << 8 | u32::from(three.get(place).copied().unwrap_or(0)));
            let digit = move |place: usize| {
                let index = (number >> (18 - 6 * place) & 63) as usize;
                if place <= three.len() { DIGITS.get(index).map_or('=', |digit| char::from(*digit)) } else { '=' }
            };
            (0..4).map(digit)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_its_padding() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
