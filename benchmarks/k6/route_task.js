// Ramp from 10 to 100 users on POST /route-task. Passes when every answer is 200 and the 95th percentile is under 500 ms.
//   k6 run --no-usage-report -e BASE_URL=http://127.0.0.1:8080 benchmarks/k6/route_task.js
import http from "k6/http";
import { check } from "k6";

const base = __ENV.BASE_URL || "http://127.0.0.1:8080";

export const options = {
  stages: [
    { duration: __ENV.RAMP || "10s", target: 10 },
    { duration: __ENV.HOLD || "20s", target: 100 },
    { duration: __ENV.DOWN || "5s", target: 0 },
  ],
  thresholds: {
    checks: ["rate==1.0"],
    http_req_failed: ["rate==0"],
    http_req_duration: ["p(95)<500"],
  },
};

export default function () {
  const answer = http.post(`${base}/route-task`, JSON.stringify({ task_type: "test" }), {
    headers: { "Content-Type": "application/json" },
  });
  check(answer, { "status is 200": (response) => response.status === 200 });
}
