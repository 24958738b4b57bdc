//! Counters of a metrics page, of whatever system: a line `name{labels} value` each.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const WITHIN: Duration = Duration::from_secs(5);

/// The metrics page of a process, over plain HTTP on loopback.
///
/// # Errors
/// Nobody answers, or not with a page.
pub async fn read(address: SocketAddr) -> anyhow::Result<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        // HTTP/1.0: the answer ends with the connection, and does not come in numbered pieces.
        let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = timeout(WITHIN, exchange).await.with_context(|| format!("{address} says nothing"))??;
    let (head, body) = answer.split_once("\r\n\r\n").context("not an HTTP answer")?;
    anyhow::ensure!(
        head.split(' ').nth(1) == Some("200"),
        "{address}: {}",
        head.lines().next().unwrap_or("")
    );
    Ok(body.to_owned())
}

/// The sum of a name's lines.
#[must_use]
pub fn sum(page: &str, name: &str) -> f64 {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labelled) => labelled.split_once('}')?.1,
            None => rest,
        };
        rest.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()
    };
    page.lines().filter_map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_summed_over_its_labels_and_no_longer_name_is() {
        let page = "# TYPE a counter\na 2\na{x=\"y\"} 3.5\na{x=\"z\"} 1 1700000000\na_count 9\nab 7\n";
        assert_eq!((sum(page, "a"), sum(page, "a_count"), sum(page, "none")), (6.5, 9.0, 0.0));
    }
}
