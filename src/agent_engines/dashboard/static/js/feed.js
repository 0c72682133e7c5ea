// The one source of data: GET v1/overview every two seconds while the page is visible.

const EVERY = 2000;
const PATIENCE = 8000;
const SLOWEST = 15000;
const TOKEN = "agent-engines-token";

function ask(path) {
  const token = sessionStorage.getItem(TOKEN);
  return fetch(path, {
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    cache: "no-store",
    signal: AbortSignal.timeout(PATIENCE),
  });
}

/** The newest tasks, or null (the page then leaves them out): they are not worth losing the rest for. */
async function latestTasks() {
  try {
    const answer = await ask("v1/tasks?limit=12");
    return answer.ok ? (await answer.json()).items : null;
  } catch (error) {
    console.warn("tasks could not be read:", error);
    return null;
  }
}

/** An answer that is no overview: somebody is there, and says why not. */
class Refusal extends Error {
  constructor(status, detail) {
    super(detail || `the server answered ${status}`);
  }
}

async function said(answer) {
  try {
    const detail = (await answer.json()).detail;
    return typeof detail === "string" ? detail : "";
  } catch {
    return "";
  }
}

/** Calls `listener(state, data)`; states: live (with data), lost (with what the server said, or null), refused (needs a token), paused (page hidden). */
export class Feed {
  constructor(listener) {
    this.listener = listener;
    this.failures = 0;
    this.timer = null;
    this.running = false;
    document.addEventListener("visibilitychange", () => this.wake());
  }

  wake() {
    clearTimeout(this.timer);
    this.timer = null;
    if (document.hidden) this.listener("paused", null);
    else if (!this.running) this.read();
  }

  useToken(token) {
    sessionStorage.setItem(TOKEN, token);
    this.wake();
  }

  async read() {
    this.running = true;
    try {
      const answer = await ask("v1/overview");
      if (answer.status === 401 || answer.status === 403) {
        this.failures = 4;
        this.listener("refused", null);
      } else if (!answer.ok) {
        throw new Refusal(answer.status, await said(answer));
      } else {
        const data = await answer.json();
        if (data.tasks === undefined) data.tasks = await latestTasks();
        this.failures = 0;
        this.listener("live", data);
      }
    } catch (error) {
      this.failures += 1;
      console.warn("overview could not be read:", error);
      this.listener("lost", error instanceof Refusal ? error.message : null);
    } finally {
      this.running = false;
      if (!document.hidden) {
        this.timer = setTimeout(() => this.read(), Math.min(SLOWEST, EVERY * 2 ** Math.max(0, this.failures - 2)));
      }
    }
  }
}
