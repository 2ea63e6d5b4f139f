// The mathematics of the pictures that the browser draws. Logits are arrays of numbers, one per class.

/** p_k = exp(z_k / T) / sum_j exp(z_j / T), stable for any finite logits. */
export function softmax(logits, temperature) {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp((logit - largest) / temperature));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/** H(p) = -sum_k p_k ln p_k, in nats; a class of probability 0 adds nothing. */
export function entropy(probabilities) {
  return probabilities.reduce((sum, p) => (p > 0 ? sum - p * Math.log(p) : sum), 0);
}

/** The label as a distribution: 1 for its class, 0 elsewhere. */
export function oneHot(classes, label) {
  return Array.from({ length: classes }, (_, index) => (index === label ? 1 : 0));
}

/** alpha * first + (1 - alpha) * second, element by element. */
export function mix(alpha, first, second) {
  return first.map((value, index) => alpha * value + (1 - alpha) * second[index]);
}

/** Length of a vector. */
export function norm(vector) {
  return Math.hypot(...vector);
}

/** The angle between two vectors in radians; 0 where one of them is null. */
export function angle(first, second) {
  const lengths = norm(first) * norm(second);
  if (lengths === 0) return 0;
  const dot = first.reduce((sum, value, index) => sum + value * second[index], 0);
  return Math.acos(Math.min(1, Math.max(-1, dot / lengths)));
}

/**
 * Gradients with respect to the student's logits of one image:
 *   task    = d CE / dz                 = softmax(z) - onehot(label)
 *   distill = d T^2 KL(teacher^T || student^T) / dz = T (softmax(z / T) - softmax(z_teacher / T))
 *   total   = alpha * distill + (1 - alpha) * task
 */
export function gradients(studentLogits, teacherLogits, label, temperature, alpha) {
  const hard = oneHot(studentLogits.length, label);
  const task = softmax(studentLogits, 1).map((p, index) => p - hard[index]);
  const teacher = softmax(teacherLogits, temperature);
  const distill = softmax(studentLogits, temperature).map((p, index) => temperature * (p - teacher[index]));
  return { task, distill, total: mix(alpha, distill, task) };
}
