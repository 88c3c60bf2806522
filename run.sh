#!/bin/bash
# usage: run.sh OFFSET(e.g. +3600s|0) ; two workers on PG, one of them with that offset
source /root/wt/ledger.env; B=/root/wt/ledger/.venv/bin
cd /tmp/skew; rm -rf lab; mkdir lab; cd lab
psql -q "$DATABASE_URL" -c 'drop database if exists skew with (force)' -c 'create database skew'
export DATABASE_URL="${DATABASE_URL%/*}/skew" REDIS_URL=redis://127.0.0.1:6404/9
redis-cli -p 6404 -n 9 flushdb >/dev/null
cat > mock.toml <<E
[answers]
latency_s = 0.3
E
$B/python -P -m worker.mock --config mock.toml --port 0 --ready-file ready & M=$!
until [ -s ready ]; do sleep .1; done
cat > understudy.toml <<E
[providers.alpha]
kind = "openai"
base_url = "$(cat ready)/alpha/v1"
api_keys = [{ name = "main", value = "env.ALPHA_KEY" }]
[worker]
max_concurrency = 60
E
export ALPHA_KEY=sk-x
python3 - <<E
import json
open("in.jsonl","w").writelines(json.dumps({"custom_id":f"l{i}","prompt":f"p {i}","model":"alpha/m"})+"\n" for i in range(4000))
E
$B/understudy migrate >/dev/null 2>&1
$B/understudy submit in.jsonl
A=(); 
if [ "$1" != 0 ]; then F="faketime -f $1"; export FAKETIME_DONT_FAKE_MONOTONIC=1 DONT_FAKE_MONOTONIC=1; fi
order=${2:-skewfirst}
start_skewed() { $F $B/python -P -m worker.main --data d1 --name skewed > skewed.log 2>&1 & W1=$!; }
start_right() { $B/python -P -m worker.main --data d2 --name right > right.log 2>&1 & W2=$!; }
if [ $order = skewfirst ]; then start_skewed; sleep 3; start_right; else start_right; sleep 3; start_skewed; fi
for i in $(seq 1 ${3:-12}); do sleep 2; echo "$(date +%T) $(psql -qAt $DATABASE_URL -c "select state, count(*), max(coalesce(wait_reason,'')) from job group by state order by 1" | tr '\n' ' ') lead=$(redis-cli -p 6404 -n 9 get understudy:planner)"; done
kill $W1 $W2; wait $W1 $W2 2>/dev/null; kill $M
tail -3 skewed.log right.log
psql -q "$DATABASE_URL" -At -c "select worker_id, sum(count) from tally where kind='job' group by 1"
