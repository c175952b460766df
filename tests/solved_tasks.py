"""A plain solution of each coding task, as a model might write it. Not a test."""

from __future__ import annotations

SOLVED = """
def is_weekend(day):
    return day.lower() in ("saturday", "sunday")

def fits_in_lift(weights, limit):
    total = 0
    for weight in weights:
        total += weight
    if total <= limit:
        return True
    else:
        return False

def has_repeated_letter(word):
    return len(set(word)) < len(word)

def never_rises(numbers):
    for i in range(1, len(numbers)):
        if numbers[i] > numbers[i - 1]:
            return False
    return True

def can_ride(height_cm, with_adult):
    return height_cm >= 120 or (height_cm >= 100 and with_adult)

def all_same_length(words: list) -> bool:
    return all(len(word) == len(words[0]) for word in words)

def contains_digit(text):
    found = False
    for c in text:
        if c.isdigit():
            found = True
    return found

def shares_evenly(slices, people):
    return slices % people == 0

def shop_is_open(hour, opens, closes):
    return opens <= hour < closes

def begins_as_it_ends(word):
    word = word.lower()
    return word[0] == word[-1]

def bookings_clash(start_a, end_a, start_b, end_b):
    return not (end_a <= start_b or end_b <= start_a)

def enough_in_stock(stock, item, wanted):
    return stock.get(item, 0) >= wanted

def count_long_words(text, length):
    return sum(1 for word in text.split() if len(word) > length)

def egg_boxes(eggs, size):
    import math
    return math.ceil(eggs / size)

def second_of_day(hours, minutes, seconds):
    return hours * 3600 + minutes * 60 + seconds

def count_above(numbers, limit):
    return len([n for n in numbers if n > limit])

def metres_climbed(heights):
    up = 0
    for low, high in zip(heights, heights[1:]):
        up += max(0, high - low)
    return up

def last_position(items, wanted):
    for i in range(len(items) - 1, -1, -1):
        if items[i] == wanted:
            return i
    return -1

def legs_on_farm(chickens, cows, spiders):
    return 2 * chickens + 4 * cows + 8 * spiders

def longest_streak(days):
    best = run = 0
    for practiced in days:
        run = run + 1 if practiced else 0
        best = max(best, run)
    return best

def count_changes(readings):
    changes, last = 0, None
    for reading in readings:
        if last is not None and reading != last:
            changes += 1
        last = reading
    return changes

def theatre_seats(rows, first_row, more):
    return rows * first_row + more * rows * (rows - 1) // 2

def smallest_step(numbers):
    smallest = abs(numbers[1] - numbers[0])
    for i in range(1, len(numbers) - 1):
        if abs(numbers[i + 1] - numbers[i]) < smallest:
            smallest = abs(numbers[i + 1] - numbers[i])
    return smallest

def goals_scored(matches, team):
    return sum(goals for name, goals in matches if name == team)

def fuel_cost(distance_km, litres_per_100km, price_per_litre):
    litres = distance_km / 100 * litres_per_100km
    return litres * price_per_litre

def trimmed_mean(scores):
    scores.sort()
    scores = scores[1:-1]
    return sum(scores) / len(scores)

def price_per_kilo(price, grams):
    return round(price / grams * 1000, 2)

def body_mass_index(weight_kg, height_m):
    return weight_kg / height_m ** 2

def share_of_yes(answers):
    return answers.count("yes") / len(answers)

def tip_per_person(bill, tip_percent, people):
    tip = bill * (tip_percent / 100)
    return tip / people

def screen_diagonal(width, height):
    import math
    return math.sqrt(width ** 2 + height ** 2)

def average_speed(distance_km, minutes):
    if minutes == 0:
        return 0
    return distance_km / (minutes / 60)

def barrel_volume(radius, height):
    from math import pi
    return pi * radius ** 2 * height

def temperature_range(temperatures):
    return max(temperatures) - min(temperatures)

def knots_to_kmh(knots):
    return knots * 1.852

def basket_total(prices, tax_rate):
    total = sum(prices)
    total += total * tax_rate
    return total

def initials(full_name):
    result = ""
    for name in full_name.split():
        result += name[0].upper() + "."
    return result

def greeting(name, hour):
    if hour < 12:
        part = "morning"
    elif hour < 18:
        part = "afternoon"
    else:
        part = "evening"
    return f"Good {part}, {name}"

def starred(word):
    return word[0] + "*" * (len(word) - 2) + word[-1]

def stutter(text, times):
    return "".join(c * times for c in text)

def ordinal(number):
    if 10 <= number % 100 <= 20:
        suffix = "th"
    else:
        suffix = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return str(number) + suffix

def ends_swapped(word):
    letters = list(word)
    letters[0], letters[-1] = letters[-1], letters[0]
    return "".join(letters)

def clock_time(minutes):
    return "%02d:%02d" % (minutes // 60, minutes % 60)

def month_label(month, year):
    return month[:3].upper() + " " + str(year)[-2:]

def listed(items):
    if len(items) == 1:
        return items[0]
    return ", ".join(items[:-1]) + " and " + items[-1]

def letter_grade(points):
    for least, grade in ((90, "A"), (80, "B"), (70, "C")):
        if points >= least:
            return grade
    return "F"

def longest_word(text):
    words = text.split()
    longest = max(words, key=len)
    return longest

def counted_noun(count, noun):
    return "{} {}{}".format(count, noun, "" if count == 1 else "s")

def every_second(items):
    return items[::2]

def daily_changes(prices):
    changes = []
    for i in range(len(prices) - 1):
        changes.append(prices[i + 1] - prices[i])
    return changes

def square_numbers(limit):
    squares = []
    n = 1
    while n * n <= limit:
        squares.append(n * n)
        n += 1
    return squares

def short_words(words, length):
    return list(filter(lambda word: len(word) <= length, words))

def turned_left(items, steps):
    steps = steps % len(items)
    return items[steps:] + items[:steps]

def above_average(numbers):
    average = sum(numbers) / len(numbers)
    return [n for n in numbers if n > average]

def padded(items, size, filler):
    return items + [filler] * (size - len(items))

def word_lengths(text):
    return [len(word) for word in text.split()]

def neighbours(items):
    return list(zip(items, items[1:]))

def countdown(start):
    return list(range(start, -1, -1))

def first_multiples(number, count):
    return [number * i for i in range(1, count + 1)]

def without_item(items, unwanted):
    kept = items.copy()
    while unwanted in kept:
        kept.remove(unwanted)
    return kept

def first_seen(word):
    seen = {}
    for i, letter in enumerate(word):
        if letter not in seen:
            seen[letter] = i
    return seen

def stock_after_sales(stock, sold):
    return {item: amount - sold.get(item, 0) for item, amount in stock.items()}

def price_list(names, prices):
    return dict(zip(names, prices))

def words_by_length(words):
    from collections import Counter
    return Counter(len(word) for word in words)

def totals_by_customer(orders):
    from collections import defaultdict
    totals = defaultdict(float)
    for customer, amount in orders:
        totals[customer] += amount
    return dict(totals)

def key_renamed(record, old, new):
    record = record.copy()
    record[new] = record.pop(old)
    return record

def passed_only(scores, mark):
    passed = dict()
    for name in scores:
        if scores[name] >= mark:
            passed[name] = scores[name]
    return passed

def vote_tally(votes):
    tally = {}
    for name in votes:
        tally[name] = tally.get(name, 0) + 1
    return tally

def table_plan(guests, per_table):
    return {guest: i // per_table + 1 for i, guest in enumerate(guests)}

def shared_letters(first, second):
    return set(first) & set(second)

def missing_numbers(numbers, limit):
    return set(range(1, limit + 1)) - set(numbers)

def who_came_twice(saturday, sunday):
    both = set()
    for visitor in saturday:
        if visitor in sunday:
            both.add(visitor)
    return both

def minutes_and_seconds(seconds):
    return divmod(seconds, 60)

def coldest_and_warmest(temperatures):
    return min(temperatures), max(temperatures)

def name_parts(full_name):
    first, last = full_name.split()
    return (first, last)
"""
SOLUTIONS = {code.split("(")[0].strip(): f"def {code.strip()}\n" for code in SOLVED.split("\ndef ")[1:]}
