#!/usr/bin/env bash
# Restart each instance of the shop, and wait until it answers before the next one stops.
#   rolling_restart.sh 8001 8002
set -euo pipefail
RESTART=${RESTART:-systemctl restart shop@}
for port in "$@"; do
    $RESTART"$port"
    for attempt in $(seq 600); do
        curl --silent --fail --output /dev/null --max-time 1 "http://127.0.0.1:$port/ready" && continue 2
        sleep 0.1
    done
    echo "shop@$port does not answer; the other instances still run" >&2
    exit 1
done
