// Ask the server.

// An error whose message is a sentence for the user.
export class Refused extends Error {}

const NO_ANSWER = "The server does not answer. Is it still running?";

// Return the JSON that an address answers with.
export async function ask(address, options) {
  for (;;) {
    let response, answer;
    try {
      response = await fetch(address, options);
      answer = await response.json();
    } catch {
      throw new Refused(NO_ANSWER);
    }
    if (response.ok) return answer;
    if (response.status !== 429) throw new Refused(answer.detail);
    const seconds = Number(response.headers.get("Retry-After")) || 1;
    await new Promise(resolve => setTimeout(resolve, 1000 * seconds));
  }
}

// Return the prediction for an image, with the image that the network saw.
export async function predict(image, name) {
  const form = new FormData();
  form.append("files", image, name);
  const answer = await ask("predict?seen=true", {method: "POST", body: form});
  return answer.predictions[0];
}

// Return a function that does `work`, but never twice at a time: what is asked for meanwhile is done
// once, afterwards. So no earlier answer comes after a later one. It returns whether all is done.
export function oneAtATime(work) {
  let running = false;
  let again = false;
  return async function run() {
    again = true;
    if (running) return false;
    running = true;
    while (again) {
      again = false;
      await work();
    }
    running = false;
    return true;
  };
}
