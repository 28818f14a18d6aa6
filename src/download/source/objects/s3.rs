//! Where a bucket of S3 is, and who asks: the variables that boto3 reads, as KServe uses it, and KServe's own.

use std::sync::{Mutex, MutexGuard, PoisonError};

use object_store::aws::AwsAuthorizer;
use object_store::client::HttpRequest;
use reqwest::Url;
use reqwest::header::LOCATION;

use super::aws::Credentials;
use super::refusal::Refusal;
use super::{below, invalid};
use crate::download::error::{Error, Result};
use crate::download::settings::Settings;
use crate::download::shared::Store as Kind;
use crate::download::variables::Variables;

/// Hosts whose buckets are asked for by names before the host alone.
const VIRTUAL_HOSTS: [&str; 3] = [".aliyuncs.com", ".myqcloud.com", ".volces.com"];
/// Codes by which a host demands that.
const VIRTUAL_HOST_DEMANDED: [&str; 4] = [
    "InvalidPathAccess",
    "PathStyleDomainForbidden",
    "SecondLevelDomainForbidden",
    "VirtualHostDomainRequired",
];

/// A bucket.
#[derive(Debug)]
pub struct S3 {
    bucket: String,
    /// The host, where it is not AWS's own of the region.
    endpoint: Option<Url>,
    accelerate: bool,
    place: Mutex<Place>,
    /// `None` where all is asked for without any.
    credentials: Option<Credentials>,
}

/// What is known of where the bucket is; an answer may say more.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    region: String,
    virtual_host: bool,
    /// Whether the region was learned from an answer: then AWS's host of that region is asked.
    learned: bool,
}

impl S3 {
    /// The bucket, as these variables say.
    pub fn new(bucket: &str, settings: &Settings) -> Result<Self> {
        let variables = &settings.variables;
        let endpoint = endpoint(variables)?;
        // As boto3 has it: the second one is other programs'.
        let named = ["AWS_DEFAULT_REGION", "AWS_REGION"]
            .into_iter()
            .find_map(|name| Some((name, variables.get(name)?)));
        if let Some((name, region)) = named
            && !region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            return Err(Error::InvalidSetting { name, why: "it has to look like eu-central-1".to_owned() });
        }
        let of_endpoint = endpoint.as_ref().and_then(|url| region_of(url.host_str()?));
        let region = named.map(|(_, region)| region.to_owned()).or(of_endpoint);
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let virtual_host = variables.is_true("S3_USER_VIRTUAL_BUCKET")
            || endpoint.as_ref().is_none_or(wants_virtual_host) && is_host_name(bucket);
        // Without keys the pod or the machine is asked for an identity; it is not for an endpoint of a cache's own.
        let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
        let keyless = keys.into_iter().all(|name| variables.get(name).is_none());
        let anonymous =
            variables.is_true("awsAnonymousCredential") || (keyless && variables.has_own(Kind::S3));
        let credentials =
            if anonymous { None } else { Some(Credentials::from_env(settings, &sts(&region))?) };
        Ok(Self {
            bucket: bucket.to_owned(),
            endpoint,
            accelerate: variables.is_true("S3_USE_ACCELERATE"),
            place: Mutex::new(Place { region, virtual_host, learned: false }),
            credentials,
        })
    }

    /// Whether requests are signed.
    pub fn signs(&self) -> bool {
        self.credentials.is_some()
    }

    /// Whether this is AWS itself, where it is known what a tag is.
    pub fn is_aws(&self) -> bool {
        self.endpoint.as_ref().is_none_or(is_aws)
    }

    /// The address of an object, or of the bucket where the key is empty.
    pub fn url(&self, key: &str) -> Url {
        let place = self.place().clone();
        let host = |host: &str| Url::parse(&format!("https://{host}.{}", domain(&place.region)));
        let own = self.endpoint.as_ref().filter(|url| !(place.learned && is_aws(url)));
        let base = match own {
            Some(url) => Ok(url.clone()),
            None if self.accelerate => host("s3-accelerate"),
            None => host(&format!("s3.{}", place.region)),
        };
        // The region is letters, digits, '-' and '_'.
        let mut base = base.unwrap_or_else(|_| unreachable!("a host with a region is one"));
        let virtual_host = place.virtual_host || (self.accelerate && own.is_none());
        let with_bucket = format!("{}.{}", self.bucket, base.host_str().unwrap_or_default());
        // A host that cannot have another before it, such as an address, stays as it is.
        if virtual_host && is_domain(&base) && base.set_host(Some(&with_bucket)).is_ok() {
            return below(&base, [key]);
        }
        below(&base, [self.bucket.as_str(), key])
    }

    /// Signs a request.
    pub async fn sign(&self, request: &mut HttpRequest, place: &str) -> Result<()> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let credential = credentials.get(place).await?;
        let region = self.place().region.clone();
        let signed = AwsAuthorizer::new(&credential, "s3", &region).try_authorize(request, None);
        signed.map_err(|error| invalid("the credentials of AWS", error.to_string()))
    }

    /// Whether a refusal says where the bucket is, so that it can be asked for there.
    pub fn learns(&self, refusal: &Refusal) -> bool {
        let mut place = self.place();
        let aws = self.is_aws();
        let redirects = matches!(refusal.status, 301 | 307);
        let location = refusal.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let host = location.and_then(|location| Url::parse(location).ok());
        let of_location = host.as_ref().and_then(Url::host_str).and_then(region_of);
        let of_endpoint = refusal.endpoint.as_deref().and_then(region_of);
        let region = refusal.region.clone().or(of_endpoint).or(of_location);
        let region =
            region.filter(|region| region.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'));
        let is_other = |region: &String| *region != place.region;
        let is_news = |region: &String| {
            (redirects && (is_other(region) || (aws && !place.learned)))
                || (refusal.status == 400 && is_other(region))
        };
        if let Some(region) = region.filter(is_news) {
            tracing::info!(bucket = self.bucket, region, "the bucket is in another region");
            *place = Place { region, learned: true, ..place.clone() };
            return true;
        }
        let demanded = VIRTUAL_HOST_DEMANDED.contains(&refusal.code.as_str());
        let changes = demanded && !place.virtual_host;
        place.virtual_host |= demanded;
        changes
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The endpoint, by the names that AWS gives it or by KServe's older ones.
fn endpoint(variables: &Variables) -> Result<Option<Url>> {
    let of_aws = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"].into_iter();
    let named = of_aws.into_iter().find_map(|name| Some((name, variables.get(name)?.to_owned())));
    let (name, text) = match (named, variables.get("S3_ENDPOINT")) {
        (Some(named), _) => named,
        (None, Some(host)) if host.contains("://") => ("S3_ENDPOINT", host.to_owned()),
        (None, Some(host)) => {
            let scheme = if variables.is_false("S3_USE_HTTPS") { "http" } else { "https" };
            ("S3_ENDPOINT", format!("{scheme}://{host}"))
        }
        (None, None) => return Ok(None),
    };
    let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url =
        url.filter(|url| url.query().is_none() && url.username().is_empty() && url.password().is_none());
    url.map(Some).ok_or_else(|| invalid(name, "it has to look like https://host".to_owned()))
}

/// The domain of AWS's partition that a region is in.
fn domain(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "amazonaws.com.cn",
        _ if region.starts_with("us-iso-") => "c2s.ic.gov",
        _ if region.starts_with("us-isob-") => "sc2s.sgov.gov",
        _ if region.starts_with("eusc-") => "amazonaws.eu",
        _ => "amazonaws.com",
    }
}

/// The address of the token service of a region.
fn sts(region: &str) -> String {
    format!("https://sts.{region}.{}", domain(region))
}

/// Whether this is a host of AWS's S3 itself, and no private endpoint.
fn is_aws(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    [".amazonaws.com", ".amazonaws.com.cn"].iter().any(|end| host.ends_with(end))
        && (host.starts_with("s3.") || host.starts_with("s3-"))
}

fn wants_virtual_host(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    is_aws(url) || VIRTUAL_HOSTS.iter().any(|end| host.ends_with(end))
}

/// Whether a bucket can be the first part of a host whose certificate is for `*.host`.
fn is_host_name(bucket: &str) -> bool {
    bucket.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn is_domain(url: &Url) -> bool {
    url.domain().is_some_and(|domain| domain != "localhost")
}

/// The region in a host of AWS, such as `bucket.s3.eu-central-1.amazonaws.com` or `s3-eu-west-1.amazonaws.com`.
fn region_of(host: &str) -> Option<String> {
    let host = host.split(['/', ':']).next()?;
    let rest = host.strip_suffix(".amazonaws.com").or_else(|| host.strip_suffix(".amazonaws.com.cn"))?;
    let region = rest.rsplit('.').next()?;
    let region = region.strip_prefix("s3-").unwrap_or(region);
    let looks = region.split('-').count() >= 3 && region.ends_with(|last: char| last.is_ascii_digit());
    looks.then(|| region.to_owned())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::*;

    fn s3<const N: usize>(bucket: &str, variables: [(&str, &str); N]) -> Result<S3> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        S3::new(bucket, &Settings::from_env(Variables::try_from(variables)?)?)
    }

    #[test]
    fn a_bucket_is_where_the_variables_say_and_never_another_one() {
        let aws = "https://models.s3.us-east-1.amazonaws.com/m/a";
        for (variables, url) in [
            ([("", ""), ("", "")], aws),
            ([("AWS_BUCKET_NAME", "other"), ("AWS_BUCKET", "other")], aws),
            ([("AWS_ENDPOINT_URL", "http://minio:9000"), ("", "")], "http://minio:9000/models/m/a"),
            (
                [("AWS_ENDPOINT_URL", "http://x/"), ("AWS_ENDPOINT_URL_S3", "http://s3:1/base/")],
                "http://s3:1/base/models/m/a",
            ),
            ([("S3_ENDPOINT", "minio:9000"), ("S3_USE_HTTPS", "0")], "http://minio:9000/models/m/a"),
            ([("S3_ENDPOINT", "minio:9000"), ("", "")], "https://minio:9000/models/m/a"),
            (
                [("AWS_ENDPOINT_URL", "http://oss:1/x"), ("S3_USER_VIRTUAL_BUCKET", "true")],
                "http://models.oss:1/x/m/a",
            ),
            (
                [("AWS_ENDPOINT_URL", "http://10.0.0.1:1"), ("S3_USER_VIRTUAL_BUCKET", "true")],
                "http://10.0.0.1:1/models/m/a",
            ),
            (
                [("S3_ENDPOINT", "s3.amazonaws.com"), ("S3_USE_HTTPS", "1")],
                "https://models.s3.amazonaws.com/m/a",
            ),
            (
                [("S3_ENDPOINT", "oss-cn-hangzhou.aliyuncs.com"), ("", "")],
                "https://models.oss-cn-hangzhou.aliyuncs.com/m/a",
            ),
            ([("S3_USE_ACCELERATE", "true"), ("", "")], "https://models.s3-accelerate.amazonaws.com/m/a"),
            ([("AWS_REGION", "us-west-2"), ("", "")], "https://models.s3.us-west-2.amazonaws.com/m/a"),
            (
                [("AWS_REGION", "us-west-2"), ("AWS_DEFAULT_REGION", "cn-north-1")],
                "https://models.s3.cn-north-1.amazonaws.com.cn/m/a",
            ),
            (
                [("AWS_DEFAULT_REGION", "us-gov-west-1"), ("", "")],
                "https://models.s3.us-gov-west-1.amazonaws.com/m/a",
            ),
        ] {
            assert_eq!(s3("models", variables).unwrap().url("m/a").as_str(), url, "{variables:?}");
        }
        let dots = s3("my.models", [("", "")]).unwrap();
        assert_eq!(dots.url("").as_str(), "https://s3.us-east-1.amazonaws.com/my.models");
    }

    #[test]
    fn what_cannot_be_an_endpoint_or_a_region_is_refused() {
        for (name, value) in [
            ("AWS_ENDPOINT_URL", "minio:9000"),
            ("AWS_ENDPOINT_URL_S3", "https://me:hunter2@minio"),
            ("S3_ENDPOINT", "ftp://minio"),
            ("AWS_DEFAULT_REGION", "evil.example/?"),
        ] {
            let text = s3("models", [(name, value)]).unwrap_err().to_string();
            assert!(text.starts_with(name) && !text.contains("hunter2"), "{text}");
        }
    }

    fn refusal(status: u16, header: Option<&str>, body: &str) -> Refusal {
        let headers = header.map(|region| ("x-amz-bucket-region".parse().unwrap(), region.parse().unwrap()));
        Refusal::new(String::new(), status, HeaderMap::from_iter(headers), body.as_bytes())
    }

    #[test]
    fn an_answer_that_names_the_region_is_followed_once() {
        let moved = "<Error><Code>PermanentRedirect</Code><Endpoint>models.s3-eu-west-1.amazonaws.com</Endpoint></Error>";
        let malformed = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>";
        for (status, header, body) in
            [(301, Some("eu-west-1"), ""), (301, None, moved), (400, None, malformed)]
        {
            let s3 = s3("models", [("AWS_ENDPOINT_URL", "https://s3.amazonaws.com")]).unwrap();
            assert!(s3.learns(&refusal(status, header, body)), "{status} {body}");
            assert_eq!(s3.url("a").as_str(), "https://models.s3.eu-west-1.amazonaws.com/a");
            assert!(!s3.learns(&refusal(status, header, body)), "{status} {body}");
        }
        let minio = s3("models", [("AWS_ENDPOINT_URL", "http://minio:9000")]).unwrap();
        assert!(
            minio.learns(&refusal(400, None, malformed)) && !minio.learns(&refusal(400, None, malformed))
        );
        assert_eq!(minio.url("a").as_str(), "http://minio:9000/models/a", "the host is the user's word");
        assert!(
            !minio.learns(&refusal(403, Some("eu-west-2"), "")) && !minio.learns(&refusal(301, None, ""))
        );
        assert!(!minio.learns(&refusal(301, Some("evil.example/"), "")));
    }

    #[test]
    fn a_host_that_demands_the_bucket_before_it_gets_it() {
        let s3 = s3("models", [("AWS_ENDPOINT_URL", "https://store.example")]).unwrap();
        let demand = refusal(403, None, "<Error><Code>SecondLevelDomainForbidden</Code></Error>");
        assert!(s3.learns(&demand) && !s3.learns(&demand));
        assert_eq!(s3.url("a").as_str(), "https://models.store.example/a");
    }

    #[test]
    fn regions_are_read_from_hosts_of_aws_alone() {
        for (host, region) in [
            ("models.s3.eu-central-1.amazonaws.com", Some("eu-central-1")),
            ("s3-eu-west-1.amazonaws.com:443/x", Some("eu-west-1")),
            ("s3.dualstack.us-gov-west-1.amazonaws.com", Some("us-gov-west-1")),
            ("s3.cn-north-1.amazonaws.com.cn", Some("cn-north-1")),
            ("s3.amazonaws.com", None),
            ("my-nice-models1.s3.amazonaws.com", None),
            ("s3.eu-central-1.example", None),
        ] {
            assert_eq!(region_of(host).as_deref(), region, "{host}");
        }
        assert_eq!(sts("cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn");
    }
}
