use schemars::JsonSchema;
use serde::Deserialize;
use turnlock_kit::tls::{Effective, Tls, is_loopback};
use turnlock_kit::{Fault, Finding, Kind, Severity};

/// Where AWS is, and who manages the user there. Part of an account by
/// `#[serde(flatten)]`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
pub struct Place {
    /// The profile of the shared files that manages the user.
    #[serde(default)]
    pub aws_profile: Option<String>,
    /// The role to assume first, by its ARN.
    #[serde(default)]
    pub aws_assume_role: Option<String>,
    /// The external id that the role asks for.
    #[serde(default)]
    pub aws_external_id: Option<String>,
    /// What the role's session is called in AWS's logs (default: turnlock).
    #[serde(default)]
    pub aws_session_name: Option<String>,
    /// The user's AWS account, 12 digits: tells users of one name apart, and is checked.
    #[serde(default)]
    #[schemars(extend("x-turnlock-identity" = true))]
    pub aws_account_id: Option<String>,
    /// The region (default: the environment's, the profile's, then us-east-1); tells the partition.
    #[serde(default)]
    pub region: Option<String>,
    /// Another address than AWS's own for IAM and STS, such as a VPC endpoint.
    #[serde(default)]
    #[schemars(extend("x-turnlock-identity" = true))]
    pub endpoint: Option<String>,
    /// How AWS is believed.
    #[serde(flatten)]
    pub tls: Tls,
}

impl Place {
    /// The host that is asked, as far as the account says, and how it is believed.
    ///
    /// # Errors
    /// `invalid_input` for an endpoint that is no address; `tls` for one where
    /// secrets would travel in clear.
    pub(crate) fn believed(&self) -> Result<(String, Effective), Fault> {
        let Some(endpoint) = &self.endpoint else {
            let host = "amazonaws.com".to_owned();
            let effective = self.tls.effective(&host);
            return if effective == Effective::Clear { Err(in_clear(&host)) } else { Ok((host, effective)) };
        };
        let unusable = || {
            Fault::new(Kind::InvalidInput, format!("`endpoint` is no https address: {endpoint}"))
                .hint("write it like https://iam.example.com")
        };
        let url = reqwest::Url::parse(endpoint).map_err(|_| unusable())?;
        let host = url.host_str().ok_or_else(unusable)?.trim_matches(['[', ']']).to_owned();
        let effective = self.tls.effective(&host);
        match url.scheme() {
            "https" if effective == Effective::Clear => Err(in_clear(&host)),
            "https" => Ok((host, effective)),
            "http" if is_loopback(&host) && effective == Effective::Opportunistic => Ok((host, Effective::Clear)),
            "http" => Err(in_clear(&host)),
            _ => Err(unusable()),
        }
    }

    /// What a person should know of weaker choices than the defaults.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = self.tls.findings();
        if let Some(endpoint) = &self.endpoint {
            let message = format!("AWS is not asked at its own address, but at {endpoint}");
            findings.push(Finding { severity: Severity::Info, message });
        }
        findings
    }
}

fn in_clear(host: &str) -> Fault {
    Fault::new(Kind::Tls, format!("{host} tells and is told secrets, which must not travel in clear"))
        .hint("leave out `tls = disable`, and write `endpoint` with https")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a broken expectation of a test is its failure")]

    use turnlock_kit::tls::Mode;

    use super::*;

    #[test]
    fn secrets_travel_in_clear_on_loopback_only() {
        let at = |endpoint: &str, tls: Option<Mode>| Place {
            endpoint: Some(endpoint.to_owned()),
            tls: Tls { tls, ..Tls::default() },
            ..Place::default()
        };
        let full = Effective::Tls(Mode::VerifyFull);
        assert_eq!(Place::default().believed().unwrap().1, full);
        assert_eq!(at("https://iam.example.com", None).believed().unwrap().1, full);
        assert_eq!(at("http://127.0.0.1:5000", None).believed().unwrap().1, Effective::Clear);
        assert_eq!(at("https://[::1]:5000", None).believed().unwrap().1, Effective::Opportunistic);
        for (refused, kind) in [
            (at("http://iam.example.com", None), Kind::Tls),
            (at("http://127.0.0.1", Some(Mode::VerifyFull)), Kind::Tls),
            (at("https://127.0.0.1", Some(Mode::Disable)), Kind::Tls),
            (at("ftp://127.0.0.1", None), Kind::InvalidInput),
            (at("iam.example.com", None), Kind::InvalidInput),
        ] {
            assert_eq!(refused.believed().unwrap_err().kind, kind, "{refused:?}");
        }
        let disabled = Place { tls: Tls { tls: Some(Mode::Disable), ..Tls::default() }, ..Place::default() };
        assert_eq!(disabled.believed().unwrap_err().kind, Kind::Tls);
    }
}
