//! A hook that is a web address: told over HTTPS, once and nowhere else, and
//! signed as "Standard Webhooks" describes, so that receivers can check the
//! signature with a library.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderValue, InvalidHeaderValue};
use reqwest::{StatusCode, Url};
use sha2::Sha256;
use turnlock_protocol::Secret;
use zeroize::Zeroizing;

use super::Key;
use crate::failure::Failure;
use crate::https;

/// What keeps it from running, as far as it can be told without a connection.
pub(super) fn problem(ca: Option<&Path>, key: Option<&Key>) -> Option<Failure> {
    let signed = key.map(bytes_of).transpose();
    signed.err().or_else(|| https::client(Some(ca?)).err())
}

/// Posts the document.
pub(super) async fn post(
    url: &Url,
    ca: Option<&Path>,
    key: Option<&Key>,
    id: &str,
    document: Vec<u8>,
    within: Duration,
) -> Result<(), Failure> {
    let at = Timestamp::now().as_second();
    let mut request = https::client(ca)?
        .post(url.clone())
        .timeout(within)
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header("webhook-id", header(id)?)
        .header("webhook-timestamp", at);
    if let Some(key) = key {
        request = request.header("webhook-signature", header(&signature(&bytes_of(key)?, id, at, &document)?)?);
    }
    let answer = request.body(document).send().await.map_err(|error| https::unanswered(error, "it"))?;
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    Err(if status.is_redirection() {
        Failure::usage("it sends us to another place, which is not followed").hint("name the right address")
    } else if status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
    {
        Failure::new(format!("it answered {status}"))
    } else {
        Failure::usage(format!("it answered {status}"))
    })
}

fn header(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text)
        .map_err(|error: InvalidHeaderValue| Failure::new("a header cannot be written").caused_by(&error))
}

/// `v1,` and HMAC-SHA256 over `id.timestamp.body`, in Base64.
fn signature(key: &[u8], id: &str, at: i64, document: &[u8]) -> Result<String, Failure> {
    let mut mac =
        <Hmac<Sha256> as Mac>::new_from_slice(key).map_err(|_| Failure::new("the signing key is unusable"))?;
    mac.update(format!("{id}.{at}.").as_bytes());
    mac.update(document);
    Ok(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

fn bytes_of(key: &Key) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let text = match key {
        Key::Text(text) => text.duplicate(),
        Key::File(file) => Secret::new(fs::read_to_string(file).map_err(|error| {
            Failure::usage(format!("the signing key {} cannot be read", file.display())).caused_by(&error)
        })?),
    };
    #[expect(clippy::disallowed_methods, reason = "decoded into the bytes that a signature is made with")]
    let text = text.expose().trim();
    let decoded = STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)).map(Zeroizing::new);
    match decoded {
        Ok(bytes) if bytes.len() >= 24 => Ok(bytes),
        _ => Err(Failure::usage("the signing key is not \"whsec_\" and at least 24 bytes in Base64")
            .hint("openssl rand -base64 32 makes one; write whsec_ before it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification.
    #[test]
    fn a_signature_is_what_the_standard_says() {
        let key = bytes_of(&Key::Text(Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()))).unwrap();
        let signed = signature(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed.unwrap(), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for wrong in ["", "whsec_", "whsec_c2hvcnQ=", "not base64 at all, but long enough to be one"] {
            let refused = bytes_of(&Key::Text(Secret::new(wrong.to_owned()))).unwrap_err();
            assert!(refused.usage && refused.message.contains("24 bytes"), "{wrong}");
        }
    }
}
